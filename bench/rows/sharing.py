"""Whether the slot is shared as promised: between clients, and between classes.

The library plays faster than an RK3588, and the window of the shares shrinks with it, so that ten minutes
pass in half a minute. First come first served is the thin relay's order.
"""

import asyncio
import json
from collections import defaultdict
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
        floods = [asyncio.create_task(_flood(stage, daemon, n, stop)) for n in range(4)]
        lower = []
        for priority in _CLASSES[1:]:
            asker = await Asker.connect(stage.port, daemon.dialect.at(priority), f"lower-{priority}")
            asker.ask([models.count(30) for _ in range(400)])
            lower.append(asker)
        await asyncio.sleep(window_s)
        stop.set()
        await asyncio.gather(*floods)
        for asker in lower:
            asker.cancel()
            await asker.close()
        used = _used(trace)
    whole = sum(used.values())
    note = (
        f"of {whole:.0f} s of slot time at {speed} times the speed; four interactive clients ask without end"
    )
    return [
        Figure(
            f"share of {name} prompts in ten minutes of an interactive flood", 100 * used[name] / whole, "%",
            None, Goal(share, "at least"), note,
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


async def _flood(stage: Stage, daemon: Service, number: int, stop: asyncio.Event) -> None:
    asker = await Asker.connect(stage.port, daemon.dialect.at("interactive"), f"voice-{number}")
    while not stop.is_set():
        asker.ask([models.say(n, 10) for n in range(2)])  # one runs or waits, another waits
        await asker.done()
    await asker.close()
