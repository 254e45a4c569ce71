"""From the publish of a cancel in mid answer to the entry of the next prompt into the library.

At the pace of an RK3588: an abort waits for the step in progress, 64 ms at most.
"""

import asyncio
import json
import random

from bench import models
from bench.asking import Answer, Asker, Broken
from bench.context import Context
from bench.figure import Figure, Goal, median

_ALLOWED_MS = 50.0
_LONG = models.count(200)
_AFTER_DELTAS = 3


async def measure(context: Context) -> list[Figure]:
    """Cancel a long answer several times, each time with another prompt waiting behind it."""
    freed_ms: list[float] = []
    told_ms: list[float] = []
    async with context.stage(models.origin) as stage:
        service = await stage.daemon("ours")
        asker = await Asker.connect(stage.port, service.dialect, "impatient")
        for number in range(context.rounds(10)):
            unwanted, wanted = asker.ask([_LONG, models.say(number, 1)])
            await _has_deltas(unwanted)
            await asyncio.sleep(random.uniform(0, models.STEP_MS / 1000))  # any moment of a step
            cancelled_ns = asker.wire.publish([(f"rkllm/bench/client/impatient/cancel/{unwanted.id}", b"")])
            await asker.done()
            _was_cancelled(unwanted)
            wanted.check(service.dialect)
            runs = service.library_log.new_runs()
            if len(runs) != 2:
                raise Broken(f"{len(runs)} runs for two prompts")
            freed_ms.append((runs[1].entry_ns - cancelled_ns) / 1e6)
            told_ms.append((unwanted.final_ns - cancelled_ns) / 1e6)
        await asker.close()
    allowed = models.STEP_MS + _ALLOWED_MS
    return [
        Figure(
            "cancel to slot free while decoding, worst", max(freed_ms), "ms", None,
            Goal(allowed, text="<= 1 token + 50 ms"),
            f"to the next prompt's entry into the library; p50 {median(freed_ms):.0f} ms, "
            f"{median(freed_ms) / models.STEP_MS:.2f} tokens; the thin relay cannot cancel",
            {"freed_ms": freed_ms, "told_ms": told_ms},
        )
    ]  # fmt: skip


async def _has_deltas(answer: Answer) -> None:
    ends_at = asyncio.get_running_loop().time() + 20
    while len(answer.deltas) < _AFTER_DELTAS:
        if asyncio.get_running_loop().time() > ends_at:
            raise Broken("no deltas came")
        await asyncio.sleep(0.005)


def _was_cancelled(answer: Answer) -> None:
    final = json.loads(answer.finals[0][1])
    if final["finish_reason"] != "cancelled" or not _LONG.answer.startswith(final["text"]):
        raise Broken(f"the cancelled prompt ended with {final['finish_reason']}")
