"""Whether the slot is shared as promised: between clients, between classes, and in time for who was told one.

The library plays faster than an RK3588, and the window of the shares shrinks with it, so that ten minutes
pass in half a minute. First come first served is the thin relay's order.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import models
from bench.asking import Answer, Asker
from bench.context import Context
from bench.figure import Figure, Goal, median
from bench.rows import waiting
from bench.service import Service, Stage

_MODEST = 9
_SPEED = 20
_SLOWER = 4
"""Where nine arrivals must be a moment beside one job."""
_WINDOW_S = 600.0
_PATIENCE = 200
"""Prompts beside which the relay is measured: it has no mercy on the other nine."""
_CLASSES = ("interactive", "normal", "background")


async def measure(context: Context) -> list[Figure]:
    """Measure fairness, then the shares, then the times that were told."""
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
    return [*figures, *await _shares(context), *await _times(context)]


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
    window_s = _WINDOW_S / _SPEED
    async with context.stage(models.origin, {"RKLLM_SIM_SPEED": str(_SPEED)}) as stage:
        trace = stage.folder / "trace.jsonl"
        settings = {"policy": {"window_s": window_s, "trace": str(trace)}}
        daemon = await stage.daemon("ours", settings)
        stop = asyncio.Event()
        floods = [asyncio.create_task(_flood(stage, daemon, n, stop)) for n in range(4)]
        lower = []
        for priority in _CLASSES[1:]:
            asker = await _asker(stage, daemon, f"lower-{priority}", priority)
            asker.ask([models.count(30) for _ in range(400)])
            lower.append(asker)
        await asyncio.sleep(window_s)
        stop.set()
        await asyncio.gather(*floods)
        for asker in lower:
            asker.wire.publish([(f"rkllm/bench/client/{asker.client}/cancel", b'{"all": true}')])
            await asker.close()
        used = _used(trace)
    whole = sum(used.values())
    note = (
        f"of {whole:.0f} s of slot time at {_SPEED} times the speed; four interactive clients ask without end"
    )
    return [
        Figure(
            f"share of {name} prompts in ten minutes of an interactive flood", 100 * used[name] / whole, "%",
            0.0, Goal(share, "at least"), note,
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
    asker = await _asker(stage, daemon, f"voice-{number}", "interactive")
    while not stop.is_set():
        asker.ask([models.say(n, 10) for n in range(2)])  # one runs or waits, another waits
        await asker.done()
    await asker.close()


async def _times(context: Context) -> list[Figure]:
    """Return how many of the times told at acceptance came true."""
    clients, each = 4, 5 if context.quick else 15
    async with context.stage(models.board, {"RKLLM_SIM_SPEED": "4"}) as stage:
        daemon = await stage.daemon("ours")
        askers = [await Asker.connect(stage.port, daemon.dialect, f"client-{n}") for n in range(clients)]
        for asker in askers:  # what each of them usually asks
            for n in range(6):
                asker.ask([_usual(askers.index(asker), n)])
                await asker.done()
        answers = await _told_together(stage, askers, each)
        told = [_told(answer) for answer in answers]
        for asker in askers:
            await asker.close()
    true = [eta for eta in told if eta is not None]
    good = sum(abs(eta_s - real_s) <= 0.3 * real_s for eta_s, real_s, _ in true)
    run_s = median([real for _, real, _ in true]) / max(1, len(true) / 2)
    fifo = sum(abs(place * run_s - real_s) <= 0.3 * real_s for _, real_s, place in true)
    return [
        Figure(
            "times told at acceptance that came true within 30 %", 100 * good / len(true), "%",
            100 * fifo / len(true), Goal(80.0, "at least"),
            f"{len(true)} prompts of {clients} clients at once, none after; beside it place times mean",
        )
    ]  # fmt: skip


async def _told_together(stage: Stage, askers: list[Asker], each: int) -> list[Answer]:
    """Ask while the slot is paused; then ask for the same again, so that each is told its time among all."""
    await waiting.command(stage.port, "pause")
    answers = [
        one
        for n, asker in enumerate(askers)
        for one in asker.ask([_usual(n, number) for number in range(each)])
    ]
    await waiting.accepted(answers)
    for asker in askers:
        asker.repeat()
    while any(_accepted(answer) < 2 for answer in answers):  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)
    await waiting.command(stage.port, "resume")
    for asker in askers:
        await asker.done()
    return answers


def _accepted(answer: Answer) -> int:
    return sum(json.loads(payload)["type"] == "accepted" for _, payload in answer.events)


def _usual(client: int, number: int) -> models.Question:
    """Return what a client asks: each has a usual length, give or take some."""
    return models.say(number, 4 + 8 * client + number % 3)


def _told(answer: Answer) -> tuple[float, float, int] | None:
    """Return the time told, the real one and the place; None for a prompt that began at once."""
    events = [(at, json.loads(payload)) for at, payload in answer.events]
    accepted_at, accepted = [(at, event) for at, event in events if event["type"] == "accepted"][-1]
    started_at = next((at for at, event in events if event["type"] == "started"), None)
    if not accepted["position"] or accepted["eta_s"] is None or started_at is None:
        return None
    return accepted["eta_s"], (started_at - accepted_at) / 1e9, accepted["position"]


async def _asker(stage: Stage, service: Service, client: str, priority: str) -> Asker:
    members: Mapping[str, Any] = {**service.dialect.members, "priority": priority}
    return await Asker.connect(stage.port, replace(service.dialect, members=members), client)
