"""How many tokens a second get through when the library costs nothing: one stream, every token intact.

From the client's publish to the arrival of the final. The client keeps what arrives and counts it afterwards,
so that it takes no part of the two cores while others work.
"""

from collections.abc import Mapping, Sequence

from bench import models
from bench.asking import Asker, Broken
from bench.context import Context
from bench.disk import slowed
from bench.figure import Figure, Goal, median
from bench.models import Question
from bench.service import Service, Stage

_LAST = 2500
_ROUNDS = 5


async def measure(context: Context) -> list[Figure]:
    """Measure three kinds of relaying, and two again on a slow disk."""
    rounds = context.rounds(_ROUNDS)
    grouped: dict[str, int] = {}
    single = {"delta_interval_ms": 0}
    async with context.stage(models.instant) as stage:
        ours, thin = await _rates(stage, [await stage.daemon("grouped", grouped), await stage.thin()], rounds)
    async with context.stage(models.instant) as stage:
        services = [await stage.daemon("single", single), await stage.thin()]
        ours_single, thin_single = await _rates(stage, services, rounds)
    slow, slow_single = [await _slow(context, settings, rounds) for settings in (grouped, single)]
    tokens = models.count(_LAST).tokens
    return [
        Figure(
            "zero-delay relay, deltas grouped", median(ours), "tokens/s", median(thin),
            Goal(50_000, "above", "> 50,000"), f"one stream of {tokens:,} tokens, every one intact",
            {"ours": ours, "thin": thin},
        ),
        Figure(
            "zero-delay relay, a message per token", median(ours_single), "tokens/s", median(thin_single),
            Goal(median(thin_single), "at least", ">= thin"), "delta_interval_ms: 0",
            {"ours": ours_single, "thin": thin_single},
        ),
        Figure(
            "zero-delay relay, grouped, +10 ms fsync", median(slow), "tokens/s", None,
            Goal(50_000, "above", "> 50,000"), raw={"ours": slow},
        ),
        Figure(
            "zero-delay relay, a message per token, +10 ms fsync", median(slow_single), "tokens/s",
            median(thin_single), Goal(median(thin_single), "at least", ">= thin"), raw={"ours": slow_single},
        ),
    ]  # fmt: skip


async def _slow(context: Context, settings: Mapping[str, int], rounds: int) -> list[float]:
    async with context.stage(models.instant, slowed(context.folder)) as stage:
        (rates,) = await _rates(stage, [await stage.daemon("slow", settings)], rounds)
        return rates


async def _rates(stage: Stage, services: Sequence[Service], rounds: int) -> list[list[float]]:
    """Return the tokens a second of each service and round, in turn; the first round is not counted."""
    askers = [await Asker.connect(stage.port, service.dialect, "reader") for service in services]
    question = models.count(_LAST)
    rates = [[await _rate(asker, question) for asker in askers] for _ in range(rounds + 1)]
    for asker in askers:
        await asker.close()
    return [list(column) for column in zip(*rates[1:], strict=True)]


async def _rate(asker: Asker, question: Question) -> float:
    """Return the tokens a second of one answer; 0 when it came with a delta missing."""
    complete = asker.wire.hold(b"/reply/")
    (answer,) = asker.ask([question])
    await complete
    asker.wire.release()
    await asker.done()
    try:
        answer.check(asker.dialect)
    except Broken:
        return 0.0
    return question.tokens / ((answer.final_ns - answer.asked_ns) / 1e9)
