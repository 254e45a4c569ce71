"""A thousand clients, connected all at once, each with one prompt within two seconds.

The slot is paused, so that all of them wait together: what is measured is the intake, and what it keeps.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import models
from bench.asking import Broken
from bench.child import footprint
from bench.context import Context
from bench.figure import Figure, Goal, median, percentile
from bench.rows.waiting import pause
from bench.service import OURS, Service, Stage
from bench.wire import Message, Wire

_WITHIN_S = 2.0
_PATIENCE_S = 30.0
_AT_ONCE = 50
"""Connections that are made at the same time."""
_TEXT_BYTES = 200


@dataclass(slots=True)
class Crowd:
    """What each client saw of its `accepted`."""

    late_ms: list[float] = field(default_factory=list)
    rss_mb: float = 0.0


async def measure(context: Context) -> list[Figure]:
    """Connect, ask, weigh."""
    count = 200 if context.quick else 1000
    async with context.stage(models.instant) as stage:
        told = await crowd(stage, await stage.daemon("ours"), count)
    beyond = told.rss_mb - 2_000 * count / 2**20
    return [
        Figure(
            f"{count:,} clients ask within {_WITHIN_S:g} s: accepted, p99", percentile(told.late_ms, 99),
            "ms", None, Goal(250, text="< 250 ms"),
            f"p50 {median(told.late_ms):.1f} ms; a connection and a mailbox each",
        ),
        Figure(
            "memory of the daemon then, less 2 kB a prompt", beyond, "MB", None, Goal(60, text="< 60 MB"),
            f"RSS {told.rss_mb:.1f} MB with {count:,} prompts waiting",
        ),
    ]  # fmt: skip


async def crowd(stage: Stage, service: Service, count: int) -> Crowd:
    """Let so many clients ask once each.

    Raises:
        Broken: Some were not accepted.
    """
    outcome = Crowd()
    asked: dict[str, int] = {}

    def heard(message: Message) -> None:
        event = json.loads(message.payload)
        if event["type"] == "accepted":
            outcome.late_ms.append((message.at_ns - asked[event["id"]]) / 1e6)
        elif event["type"] == "rejected":
            raise Broken(f"a client was rejected: {event['error']}")

    await pause(stage.port)
    wires: list[Wire] = []
    for start in range(0, count, _AT_ONCE):
        numbers = range(start, min(count, start + _AT_ONCE))
        wires += await asyncio.gather(*(_connected(stage.port, n, heard) for n in numbers))
    await _ask(wires, asked)
    until = time.monotonic() + _PATIENCE_S
    while len(outcome.late_ms) < count:
        if time.monotonic() > until:
            raise Broken(f"{count - len(outcome.late_ms)} of {count} clients were not accepted")
        await asyncio.sleep(0.02)
    outcome.rss_mb = footprint(service.child.pid).rss_mb
    for wire in wires:
        await wire.close()
    return outcome


async def _connected(port: int, number: int, heard: Callable[[Message], None]) -> Wire:
    wire = await Wire.open(port, f"client{number}", heard)
    await wire.subscribe([f"{OURS.mailbox(f'client{number}')}/event/+"])
    return wire


async def _ask(wires: Sequence[Wire], asked: dict[str, int]) -> None:
    """Send the prompts evenly over the time."""
    began, sent = time.monotonic(), 0
    while sent < len(wires):
        due = min(len(wires), int((time.monotonic() - began) * len(wires) / _WITHIN_S) + 1)
        for number in range(sent, due):
            request_id = f"q{number}"
            text = f"say: {number:06} ".ljust(_TEXT_BYTES, "x")
            topic, payload = OURS.request(f"client{number}", request_id, text)
            asked[request_id] = time.monotonic_ns()
            wires[number].publish([(topic, payload)])
        sent = due
        await asyncio.sleep(0.002)
