"""From a SIGSEGV inside the library to the entry of the next run, less the load of the model.

The library dies right after it has given out its third token, so the arrival of that token, which is at most
a millisecond later, stands for the moment of the crash. Three more prompts wait; all four must be answered.
"""

import json

from bench import models
from bench.asking import Asker, Broken
from bench.context import Context
from bench.figure import Figure, Goal, median


async def measure(context: Context) -> list[Figure]:
    """Crash the library several times."""
    usable_ms: list[float] = []
    async with context.stage(models.crashing) as stage:
        service = await stage.daemon("ours", {"delta_interval_ms": 0})
        asker = await Asker.connect(stage.port, service.dialect, "unlucky")
        for number in range(context.rounds(5)):
            answers = asker.ask([models.crash(number), *(models.say(number * 3 + n, 3) for n in range(3))])
            await asker.done()
            for answer in answers:
                answer.check(service.dialect)
            crash_ns = next(
                (
                    at
                    for at, delta in answers[0].deltas
                    if json.loads(delta)["seq"] == models.CRASH_TOKENS - 1
                ),
                None,
            )
            attempts = json.loads(answers[0].finals[0][1])["attempt"]
            if crash_ns is None or attempts != 2:
                raise Broken(f"the library did not crash once: {attempts} attempts")
            after = [run.entry_ns for run in service.library_log.new_runs() if run.entry_ns > crash_ns]
            usable_ms.append((min(after) - crash_ns) / 1e6 - models.LOAD_MS)
        await asker.close()
    return [
        Figure(
            "crash to slot usable, less the load, worst", max(usable_ms), "ms", None, Goal(1000),
            f"SIGSEGV while decoding, {len(usable_ms)} times, p50 {median(usable_ms):.0f} ms; "
            "the crashed prompt and three waiting ones all answered",
            {"usable_ms": usable_ms},
        )
    ]  # fmt: skip
