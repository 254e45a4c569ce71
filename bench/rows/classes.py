"""How long each class waits for its first token under load, beside the thin relay in order of arrival.

Both get the same arrivals at random, so that four fifths of the slot's time are asked for. The library plays
faster than an RK3588; the times are told as they would be there.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from bench import models
from bench.asking import Answer, Asker
from bench.context import Context
from bench.figure import Figure, median, percentile
from bench.service import Service, Stage

_SPEED = 8
_LAST_S = 240.0
"""How long prompts come, in the time of an RK3588."""


@dataclass(frozen=True, slots=True)
class _Load:
    """What a class asks."""

    every_s: float
    tokens: int
    """Of an answer."""
    clients: int


_LOADS: Mapping[str, _Load] = {
    "interactive": _Load(8.0, 10, 2),
    "normal": _Load(10.0, 36, 3),
    "background": _Load(16.0, 96, 2),
}


@dataclass(frozen=True, slots=True)
class _Arrival:
    at_s: float
    priority: str
    client: str
    question: models.Question


async def measure(context: Context) -> list[Figure]:
    """Let the same afternoon pass twice."""
    arrivals = arrivals_of(_LAST_S / 4 if context.quick else _LAST_S)
    environ = {"RKLLM_SIM_SPEED": str(_SPEED)}
    async with context.stage(models.origin, environ) as stage:
        ours = await _waits(stage, await stage.daemon("ours"), arrivals)
    async with context.stage(models.origin, environ) as stage:
        thin = await _waits(stage, await stage.thin(), arrivals)
    asked_s = sum(models.slot_s(arrival.question) for arrival in arrivals)
    load = 100 * asked_s / max(arrival.at_s for arrival in arrivals)
    return [
        Figure(
            f"first token under load, {name}, p95", percentile(ours[name], 95), "s",
            percentile(thin[name], 95), None,
            f"{len(ours[name])} prompts, p50 {median(ours[name]):.2f} s beside {median(thin[name]):.2f} s; "
            f"{load:.0f} % of the slot's time is asked for; {_SPEED} times the speed",
        )
        for name in _LOADS
    ]  # fmt: skip


def arrivals_of(last_s: float) -> list[_Arrival]:
    """Return who asks what when; always the same."""
    rng = random.Random(11)
    arrivals: list[_Arrival] = []
    for priority, load in _LOADS.items():
        at_s = rng.expovariate(1 / load.every_s)
        while at_s < last_s:
            question = models.say(len(arrivals), load.tokens)
            client = f"{priority}-{rng.randrange(load.clients)}"
            arrivals.append(_Arrival(at_s, priority, client, question))
            at_s += rng.expovariate(1 / load.every_s)
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


async def _waits(stage: Stage, service: Service, arrivals: list[_Arrival]) -> Mapping[str, list[float]]:
    """Return the seconds to the first token by class, in the time of an RK3588."""
    askers: dict[str, Asker] = {}
    for arrival in arrivals:
        if arrival.client not in askers:
            dialect = service.dialect.at(arrival.priority)
            askers[arrival.client] = await Asker.connect(stage.port, dialect, arrival.client)
    asked: list[tuple[str, Answer]] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    for arrival in arrivals:
        await asyncio.sleep(began + arrival.at_s / _SPEED - loop.time())
        (answer,) = askers[arrival.client].ask([arrival.question])
        asked.append((arrival.priority, answer))
    for asker in askers.values():
        await asker.done()
    waits: dict[str, list[float]] = defaultdict(list)
    for priority, answer in asked:
        answer.check(service.dialect)
        waits[priority].append((answer.first_ns - answer.asked_ns) / 1e9 * _SPEED)
    for asker in askers.values():
        await asker.close()
    return waits
