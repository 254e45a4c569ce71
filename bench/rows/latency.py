"""What the way over MQTT adds to the first token and to each later one, at the pace of an RK3588.

First token: from the client's publish to the arrival of the first delta, less the library's 295 ms.
Later tokens: from the moment at which the library gives a token out to the arrival of its delta. That moment
is the library's entry, plus its schedule, plus what the callbacks before it took: the library adds them to
its steps, and their mean follows from the logged return. The lateness of timers, some 60 microseconds, counts
against both services alike.
"""

import asyncio
import random
from dataclasses import dataclass, field

from bench import models
from bench.asking import Answer, Asker, ask_one
from bench.context import Context
from bench.disk import slowed, sync_times_ms
from bench.figure import Figure, Goal, median, percentile
from bench.library_log import LibraryRun
from bench.service import Service, Stage

_TOKENS = 5
_BLOCK = 10


@dataclass(slots=True)
class Samples:
    """What one service added, milliseconds."""

    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    slowing: list[float] = field(default_factory=list)
    """Per token: what the callback made the library wait."""

    def add(self, answer: Answer, run: LibraryRun) -> None:
        """Take one answer and what the library logged of its run."""
        self.first.append((answer.first_ns - answer.asked_ns) / 1e6 - models.PREFILL_MS)
        schedule = models.PREFILL_MS + (run.tokens - 1) * models.STEP_MS
        callback = max(0.0, run.slot_s * 1000 - schedule) / run.tokens
        self.slowing.append(callback)
        for number, (at_ns, _) in enumerate(answer.deltas[1:], 1):
            given_out = models.PREFILL_MS + number * (models.STEP_MS + callback)
            self.later.append((at_ns - run.entry_ns) / 1e6 - given_out)


async def measure(context: Context) -> list[Figure]:
    """Ask both services in turn, one question at a time."""
    async with context.stage(models.origin) as stage:
        disk = sync_times_ms(stage.folder, context.rounds(100))
        ours, thin = Samples(), Samples()
        pairs = [(await stage.daemon("ours"), ours), (await stage.thin(), thin)]
        await _alternate(stage, pairs, context.rounds(30))
    async with context.stage(models.origin, slowed(context.folder)) as stage:
        slow = Samples()
        await _alternate(stage, [(await stage.daemon("ours"), slow)], context.rounds(8))
    disk_p99 = percentile(disk, 99)
    return [
        Figure(
            "added to the first token, p50", median(ours.first), "ms", median(thin.first), Goal(2.0),
            f"{len(ours.first)} questions, {models.PREFILL_MS:g} ms prefill, {models.STEP_MS} ms a token",
            {"ours_ms": ours.first, "thin_ms": thin.first},
        ),
        Figure(
            "added to the first token, p99", percentile(ours.first, 99), "ms", percentile(thin.first, 99),
            note=f"this disk's fdatasync: p50 {median(disk):.2f} ms, p99 {disk_p99:.2f} ms",
            raw={"fdatasync_ms": disk},
        ),
        Figure(
            "added per token, p50", median(ours.later), "ms", median(thin.later), Goal(0.6),
            "from the library's hand to the client's socket",
            {"ours_ms": ours.later, "thin_ms": thin.later},
        ),
        Figure("added per token, p99", percentile(ours.later, 99), "ms", percentile(thin.later, 99)),
        Figure(
            "decoding slowed per token, p50", median(ours.slowing), "ms", median(thin.slowing),
            note="what the token callback makes the library wait",
            raw={"ours_ms": ours.slowing, "thin_ms": thin.slowing},
        ),
        Figure(
            "added to the first token, p50, +10 ms fsync", median(slow.first), "ms",
            note="one commit lies before the first token; p50 must stay below 20 ms",
            raw={"ours_ms": slow.first},
        ),
    ]  # fmt: skip


async def _alternate(stage: Stage, pairs: list[tuple[Service, Samples]], rounds: int) -> None:
    """Ask in blocks, service after service, so that a noisy moment of the machine hits both."""
    askers = [await Asker.connect(stage.port, service.dialect, "voice") for service, _ in pairs]
    number = 0
    for service, asker in zip((service for service, _ in pairs), askers, strict=True):
        await ask_one(asker, models.say(number, _TOKENS))  # the first question pays for lazy imports
        service.library_log.new_runs()
    for start in range(0, rounds, _BLOCK):
        for (service, samples), asker in zip(pairs, askers, strict=True):
            for _ in range(min(_BLOCK, rounds - start)):
                number += 1
                answer = await ask_one(asker, models.say(number, _TOKENS))
                (run,) = service.library_log.new_runs()
                samples.add(answer, run)
                # A person does not ask at a fixed beat of the daemon's own timers.
                await asyncio.sleep(random.uniform(0.01, 0.05))
    for asker in askers:
        await asker.close()
