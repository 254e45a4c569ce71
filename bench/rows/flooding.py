"""What a flood from one client does to the others: how late their `accepted` comes, and the memory it takes.

One client sends 10,000 prompts at 2,000 a second while another asks twenty times a second, first alone. The
broker queues without limit, the library has the pace of an RK3588, the limits are the daemon's defaults.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

from bench import models
from bench.asking import Broken
from bench.child import cpu_s, footprint
from bench.context import Context
from bench.figure import Figure, Goal, median, percentile
from bench.service import OURS, Service, Stage
from bench.wire import Message, Wire

FLOOD = 10_000
_RATE = 2_000
_PIECE_S = 0.01
_ASKED_EVERY_S = 0.05
_QUIET_S = 4.0
_PATIENCE_S = 30.0
_LIMITS = {"limits": {"max_tokens": 16_384}}
"""The defaults; the other rows raise the lengths of the queue."""


@dataclass(slots=True)
class Outcome:
    """What a flood did."""

    quiet_ms: list[float] = field(default_factory=list)
    """From a question to its `accepted` before the flood, milliseconds."""
    flooded_ms: list[float] = field(default_factory=list)
    """The same while it lasts."""
    told: Counter[str] = field(default_factory=Counter)
    """Events that the flooding client got, by type."""
    dropped: int = 0
    """What its `rate_limited` events say together."""
    cpu_s: float = 0.0
    """CPU time of the daemon while it was flooded."""
    rss_before_mb: float = 0.0
    rss_most_mb: float = 0.0


async def measure(context: Context) -> list[Figure]:
    """Flood once."""
    count = 2_000 if context.quick else FLOOD
    async with context.stage(models.origin) as stage:
        service = await stage.daemon("ours", _LIMITS)
        told = await flood(stage, service, count)
    late, usual = told.flooded_ms, told.quiet_ms
    grown_mb = told.rss_most_mb - told.rss_before_mb
    note = (
        f"p50 {median(late):.1f} ms; without the flood {median(usual):.1f} and {percentile(usual, 99):.1f} ms"
    )
    events = ", ".join(f"{number:,} {kind}" for kind, number in sorted(told.told.items()))
    return [
        Figure(
            f"`accepted` beside a flood of {count:,} at {_RATE:,}/s, p99", percentile(late, 99), "ms", None,
            Goal(100), note, {"quiet_ms": usual, "flooded_ms": late},
        ),
        Figure(
            "growth of the daemon in that flood", grown_mb, "MB", None, None,
            f"its sender was told: {events}; {told.dropped:,} were dropped; {told.cpu_s:.1f} s of CPU",
        ),
    ]  # fmt: skip


async def flood(stage: Stage, service: Service, count: int) -> Outcome:
    """Let one client flood and another ask; return what both saw.

    Raises:
        Broken: A question of the other client was never accepted, or rejected.
    """
    outcome = Outcome(rss_before_mb=footprint(service.child.pid).rss_mb)
    asked: dict[str, int] = {}
    late: dict[str, float] = {}

    def heard(message: Message) -> None:
        event = json.loads(message.payload)
        if event["type"] == "accepted":
            late[event["id"]] = (message.at_ns - asked[event["id"]]) / 1e6
        elif event["type"] == "rejected":
            raise Broken(f"the other client was rejected: {event['error']}")

    def told(message: Message) -> None:
        event = json.loads(message.payload)
        outcome.told[event["type"]] += 1
        outcome.dropped += event.get("dropped", 0)

    quiet = await Wire.open(stage.port, "quiet", heard)
    noisy = await Wire.open(stage.port, "noisy", told)
    await quiet.subscribe([f"{OURS.mailbox('quiet')}/event/+"])
    await noisy.subscribe([f"{OURS.mailbox('noisy')}/event/#"])

    async def ask(prefix: str, going: asyncio.Task[None] | None) -> list[float]:
        """Ask at a steady pace for `_QUIET_S`, or while something goes on; return how late each was."""
        ends_at, number = time.monotonic() + _QUIET_S, 0
        while not going.done() if going else time.monotonic() < ends_at:
            request_id = f"{prefix}{number}"
            topic, payload = OURS.request("quiet", request_id, "say: one")
            asked[request_id] = quiet.publish([(topic, payload)])
            number += 1
            await asyncio.sleep(_ASKED_EVERY_S)
        until = time.monotonic() + _PATIENCE_S
        names = [f"{prefix}{n}" for n in range(number)]
        while any(name not in late for name in names):
            if time.monotonic() > until:
                raise Broken(f"{sum(name not in late for name in names)} questions were not accepted")
            await asyncio.sleep(0.05)
        return [late[name] for name in names]

    outcome.quiet_ms = await ask("before", None)
    cpu_before_s = cpu_s(service.child.pid)
    sending = asyncio.create_task(_send(noisy, count, service, outcome))
    outcome.flooded_ms = await ask("beside", sending)
    await sending
    outcome.cpu_s = cpu_s(service.child.pid) - cpu_before_s
    for wire in (quiet, noisy):
        await wire.close()
    return outcome


async def _send(wire: Wire, count: int, service: Service, outcome: Outcome) -> None:
    began, sent = time.monotonic(), 0
    weighed_at = 0.0
    while sent < count:
        due = min(count, int((time.monotonic() - began) * _RATE) + 1)
        wire.publish([OURS.request("noisy", f"f{number}", "say: two") for number in range(sent, due)])
        sent = due
        if time.monotonic() - weighed_at > 0.25:
            weighed_at = time.monotonic()
            outcome.rss_most_mb = max(outcome.rss_most_mb, footprint(service.child.pid).rss_mb)
        await asyncio.sleep(_PIECE_S)
    await asyncio.sleep(1.5)
    outcome.rss_most_mb = max(outcome.rss_most_mb, footprint(service.child.pid).rss_mb)
