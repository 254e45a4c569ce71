"""Many prompts at once: wall time from the first publish to the last final, over the sum of the slot times.

The slot time of a run is the return of rkllm_run minus its entry, as the library logs it. Ten senders, a
connection each, send their share in one piece and stream all answers; each answer is checked.
"""

from itertools import pairwise

from bench import models
from bench.asking import Answer, Asker, Broken
from bench.context import Context
from bench.disk import slowed
from bench.figure import Figure, Goal, median, percentile
from bench.service import Service, Stage

_SENDERS = 10
_QUICK = 6
"""How much faster than an RK3588 the library plays in a quick look: 100 runs take over a minute."""


async def measure(context: Context) -> list[Figure]:
    """Measure 10, 100 and 1,000 prompts, each on a usual and on a slow disk."""
    hundred, thousand, speed = (30, 100, _QUICK) if context.quick else (100, 1000, 1)
    return [
        *await _row(context, 10, 1.003, models.origin, 1),
        *await _row(context, hundred, 1.003, models.origin, speed),
        *await _row(context, thousand, 1.15, models.brief, 1),
    ]


async def _row(context: Context, count: int, goal: float, model: models.Writer, speed: int) -> list[Figure]:
    environ = {"RKLLM_SIM_SPEED": str(speed)}
    async with context.stage(model, environ) as stage:
        ours = await _ratio(stage, await stage.daemon("ours"), count)
    async with context.stage(model, environ) as stage:
        thin = await _ratio(stage, await stage.thin(), count)
    async with context.stage(model, {**environ, **slowed(context.folder)}) as stage:
        slow = await _ratio(stage, await stage.daemon("ours"), count)
    name = f"{count:,} at once / sum of slot times"
    note = f"all intact; {ours['slot_ms']:.1f} ms of slot time each, {ours['between_p50_ms']:.2f} ms between"
    slow_note = f"all intact; {slow['between_p50_ms']:.2f} ms between runs"
    raw = {"ours": ours, "thin": thin}
    return [
        Figure(name, ours["ratio"], "x", thin["ratio"], Goal(goal), note, raw),
        Figure(f"{name}, +10 ms fsync", slow["ratio"], "x", None, Goal(goal), slow_note, {"ours": slow}),
    ]


async def _ratio(stage: Stage, service: Service, count: int) -> dict[str, float]:
    """Return the ratio and what it is made of.

    Raises:
        Broken: An answer is missing, wrong, or there twice.
    """
    askers = [await Asker.connect(stage.port, service.dialect, f"sender{n}") for n in range(_SENDERS)]
    (warm,) = askers[0].ask([models.say(0)])
    await askers[0].done()
    warm.check(service.dialect)
    service.library_log.new_runs()
    answers: list[Answer] = []
    share = count // _SENDERS
    for number, asker in enumerate(askers):
        answers += asker.ask([models.say(number * share + n) for n in range(share)])
    for asker in askers:
        await asker.done()
    for answer in answers:
        answer.check(service.dialect)
    if any(asker.strangers for asker in askers):
        raise Broken("an answer to nothing that was asked")
    runs = service.library_log.new_runs()
    if len(runs) != len(answers):
        raise Broken(f"{len(runs)} runs for {len(answers)} prompts")
    first_ns = min(answer.asked_ns for answer in answers)
    last_ns = max(answer.final_ns for answer in answers)
    slots = sum(run.slot_s for run in runs)
    between = [(b.entry_ns - a.return_ns) / 1e6 for a, b in pairwise(runs)]
    for asker in askers:
        await asker.close()
    return {
        "ratio": (last_ns - first_ns) / 1e9 / slots,
        "wall_s": (last_ns - first_ns) / 1e9,
        "slots_s": slots,
        "slot_ms": slots / len(runs) * 1000,
        "before_ms": (runs[0].entry_ns - first_ns) / 1e6,
        "after_ms": (last_ns - runs[-1].return_ns) / 1e6,
        "between_p50_ms": median(between),
        "between_p99_ms": percentile(between, 99),
        "between_sum_ms": sum(between),
    }
