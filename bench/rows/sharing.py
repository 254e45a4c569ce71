"""Whether the slot is shared as promised: between clients, and between classes.

The library plays faster than an RK3588, and the window of the shares shrinks with it, so that ten minutes
pass in half a minute. First come first served is the thin relay's order.
"""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path

from bench import models
from bench.asking import Asker
from bench.context import Context
from bench.figure import Figure, Goal
from bench.rows import waiting
from bench.service import Service, Stage

_MODEST = 9
_SPEED = 20
_SLOWER = 4
"""Where nine arrivals must be a moment beside one job."""
_WINDOW_S = 600.0
_PATIENCE = 60
"""Prompts beside which the relay is measured: it has no mercy on the other nine."""
_VOICES = 4
_SAID = 10
"""Tokens of an interactive answer."""
_LOW = models.count(30)
_LOWER = 400
"""Prompts that each lower class has waiting."""
_CLASSES = ("interactive", "normal", "background")


async def measure(context: Context) -> list[Figure]:
    """Measure fairness, then the shares."""
    many = 60 if context.quick else 1000
    figures = []
    environ = {"RKLLM_SIM_SPEED": str(_SLOWER)}
    for affinity, more_s in ((False, 0.0), (True, 2.0)):
        settings = {"policy": {"prefix_affinity": affinity}}
        async with context.stage(models.origin, environ) as stage:
            alone = await _modest_waits(stage, await stage.daemon("ours", settings), 1)
        async with context.stage(models.origin, environ) as stage:
            beside = await _modest_waits(stage, await stage.daemon("ours", settings), many)
        thin = None
        if not affinity:
            async with context.stage(models.origin, environ) as stage:
                thin_alone = await _modest_waits(stage, await stage.thin(), 1)
            async with context.stage(models.origin, environ) as stage:
                thin = await _modest_waits(stage, await stage.thin(), min(many, _PATIENCE)) - thin_alone
        job_s = (models.PREFILL_MS + 5 * models.STEP_MS) / _SLOWER / 1000
        switch = "on" if affinity else "off"
        figures.append(
            Figure(
                f"nine clients wait longer beside {many:,} prompts of another, affinity {switch}",
                (beside - alone) * 1000, "ms", None if thin is None else thin * 1000,
                Goal((job_s + more_s) * 1000, text="one job" + (" + 2 s" if affinity else "")),
                f"mean of nine, than beside one; one job takes {job_s * 1000:.0f} ms; the relay beside "
                f"{min(many, _PATIENCE)}",
            )
        )  # fmt: skip
    return figures + await _shares(context)


async def _modest_waits(stage: Stage, service: Service, many: int) -> float:
    """Return the mean wait, seconds, of nine clients' prompts that come when another has asked so many."""
    greedy = await Asker.connect(stage.port, service.dialect, "greedy")
    askers = [await Asker.connect(stage.port, service.dialect, f"modest-{n}") for n in range(_MODEST)]
    first, *others = greedy.ask([models.say(n) for n in range(many)])
    if service.dialect.is_json:  # how fast a burst is taken is another row
        await waiting.accepted([first, *others])
    while not first.deltas and not first.finals:  # noqa: ASYNC110 - a wire has no event to wait for
        await asyncio.sleep(0.001)
    answers = [asker.ask([models.say(n)])[0] for n, asker in enumerate(askers)]
    for asker in askers:
        await asker.done()
    waits = [(answer.final_ns - answer.asked_ns) / 1e9 for answer in answers]
    for answer in answers:
        answer.check(service.dialect)
    for asker in (greedy, *askers):
        await asker.close()
    return sum(waits) / len(waits)


async def _shares(context: Context) -> list[Figure]:
    """Return the shares of the lower classes in ten minutes of an interactive flood."""
    speed = 3 * _SPEED if context.quick else _SPEED
    window_s = _WINDOW_S / speed
    async with context.stage(models.origin, {"RKLLM_SIM_SPEED": str(speed)}) as stage:
        trace = stage.folder / "trace.jsonl"
        settings = {"policy": {"window_s": window_s, "trace": str(trace)}}
        daemon = await stage.daemon("ours", settings)
        stop = asyncio.Event()
        floods = [asyncio.create_task(_flood(stage, daemon, n, stop)) for n in range(_VOICES)]
        lower = []
        for priority in _CLASSES[1:]:
            asker = await Asker.connect(stage.port, daemon.dialect.at(priority), f"lower-{priority}")
            asker.ask([_LOW] * _LOWER)
            lower.append(asker)
        await asyncio.sleep(window_s)
        stop.set()
        await asyncio.gather(*floods)
        for asker in lower:
            asker.cancel()
            await asker.close()
        used = _used(trace)
    whole, in_order = sum(used.values()), shares_in_order()
    note = (
        f"of {whole:.0f} s of slot time at {speed} times the speed; {_VOICES} voices ask all the "
        f"time; beside it in order of arrival, on paper: they {in_order[_CLASSES[0]]:.1f} %"
    )
    return [
        Figure(
            f"share of {name} prompts in ten minutes of an interactive flood", 100 * used[name] / whole, "%",
            in_order[name], Goal(share, "at least"), note,
        )
        for name, share in (("normal", 15.0), ("background", 5.0))
    ]  # fmt: skip


def _used(trace: Path) -> Mapping[str, float]:
    """Return the slot time of each class, as the policy settled it."""
    classes: dict[int, str] = {}
    used: dict[str, float] = defaultdict(float)
    for line in trace.read_text().splitlines():
        kind, *members = json.loads(line)
        if kind == "add":
            classes[members[0]] = _CLASSES[members[2]]
        elif kind == "enter":
            classes[members[0]] = _CLASSES[members[1]]
        elif kind == "settle":
            used[classes[members[0]]] += members[1]
    return used


def shares_in_order() -> Mapping[str, float]:
    """Return what each class would have of ten minutes in the order of arrival, percent."""
    used: dict[str, float] = dict.fromkeys(_CLASSES, 0.0)
    costs = dict.fromkeys(_CLASSES, models.slot_s(_LOW))
    costs[_CLASSES[0]] = models.slot_s(models.say(0, _SAID))
    line = deque([_CLASSES[0]] * 2 * _VOICES + [_CLASSES[1]] * _LOWER + [_CLASSES[2]] * _LOWER)
    while (left_s := _WINDOW_S - sum(used.values())) > 1e-6:
        served = line.popleft()
        used[served] += min(left_s, costs[served])
        if served == _CLASSES[0]:
            line.append(served)  # who has an answer asks again
    return {name: 100 * seconds / _WINDOW_S for name, seconds in used.items()}


async def _flood(stage: Stage, daemon: Service, number: int, stop: asyncio.Event) -> None:
    asker = await Asker.connect(stage.port, daemon.dialect.at("interactive"), f"voice-{number}")
    while not stop.is_set():
        asker.ask([models.say(n, _SAID) for n in range(2)])  # one runs or waits, another waits
        await asker.done()
    await asker.close()
