"""What `top` knows of one daemon: its retained messages, when they came, and the speed of late."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from rkllm_mqtt.commands.client_connection import Message, members_of

_REMEMBERED = 100
"""Prompts whose tokens are known, should they go on."""
STALE_S = 90.0
"""A health message older than this means that the daemon is dead, whatever its status says."""
HISTORY_S = 300
PARTS = ("status", "info", "queue", "health", "stats")


class TopState(Struct):
    """The newest state; absent parts are empty. Times are monotonic seconds unless said otherwise."""

    base: str
    node: str
    broker: str
    """Where, for the person."""
    protocol: str = ""
    broker_lost: str | None = None
    """Why the connection is away; None while it is there."""
    status: str = ""
    """`online`, `offline` or empty when the node has never shown itself."""
    info: dict[str, Any] = field(default_factory=dict)
    queue: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    queue_came: float = 0.0
    health_came: float | None = None
    """When a health message arrived that was not stored; None before the first."""
    rate: float = 0.0
    """Tokens/s of all running prompts, between the last two queue messages."""
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY_S))
    """One rate per second, oldest first."""
    _tokens: dict[tuple[str, str, int], tuple[float, float]] = field(default_factory=dict)

    @property
    def topics(self) -> list[str]:
        """Return what to subscribe to."""
        return [f"{self.base}/{self.node}/{part}" for part in PARTS]

    def take(self, message: Message, now: float) -> None:
        """Take a message of one of `topics`; what does not parse is ignored."""
        part = message.topic.removeprefix(f"{self.base}/{self.node}/")
        if part == "status":
            self.status = message.payload.decode("utf-8", "replace")[:20]
            return
        members = members_of(message.payload)
        if part == "info":
            self.info = members
        elif part == "stats":
            self.stats = members
        elif part == "health":
            self.health = members
            if not message.retained:
                self.health_came = now
        elif part == "queue":
            self.queue, self.queue_came = members, now
            self._measure()

    def sample(self) -> None:
        """Add the present rate to the history; call once a second."""
        self.rates.append(self.rate if self.is_online else 0.0)

    @property
    def is_online(self) -> bool:
        """Return whether the daemon says so itself; see `is_stale`."""
        return self.status == "online"

    def is_stale(self, now: float, wall: float | None = None) -> bool:
        """Return whether the health is too old to believe that the daemon lives.

        Args:
            now: Monotonic seconds.
            wall: Unix seconds. It is compared with the daemon's clock only until a fresh message has
                come, because the two clocks may differ.
        """
        if self.health_came is not None:
            return now - self.health_came > STALE_S
        at = number(self.health.get("at"))
        return at is not None and (time.time() if wall is None else wall) - at > STALE_S

    def running(self) -> list[Mapping[str, Any]]:
        """Return the prompts in the slot, as the daemon lists them."""
        found = self.queue.get("running")
        return [job for job in found if isinstance(job, dict)] if isinstance(found, list) else []

    def document(self, now: float) -> dict[str, Any]:
        """Return everything as one JSON document, for scripts."""
        return {
            "broker": self.broker,
            "base": self.base,
            "node": self.node,
            "status": self.status or "unknown",
            "stale": self.is_stale(now),
            "info": self.info,
            "queue": self.queue,
            "health": self.health,
            "stats": self.stats,
        }

    def _measure(self) -> None:
        seen, rate = dict(list(self._tokens.items())[-_REMEMBERED:]), 0.0
        for job in self.running():
            tokens, elapsed_s = number(job.get("tokens")), number(job.get("elapsed_s"))
            if tokens is None or elapsed_s is None:
                continue
            key = (str(job.get("client")), str(job.get("id")), int(number(job.get("attempt")) or 0))
            tokens_before, elapsed_before = seen.pop(key, (0.0, 0.0))
            seen[key] = (tokens, elapsed_s)
            if elapsed_s < elapsed_before:
                elapsed_before = 0.0  # it had given way, and goes on where it was
            if elapsed_s > elapsed_before and tokens >= tokens_before:
                rate += (tokens - tokens_before) / (elapsed_s - elapsed_before)
        self._tokens, self.rate = seen, rate


def number(value: object) -> float | None:
    """Return a JSON number as float; None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def members(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}
