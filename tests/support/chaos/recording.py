"""What happened in one run, for the checker: what was asked, said, really run, and broken.

All times are seconds of CLOCK_MONOTONIC. A recording can be kept as JSON and checked again.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints


@dataclass(slots=True)
class Asked:
    """One request of a sender."""

    client: str
    id: str
    words: str
    """The user's message; no other request has the same."""
    first_at: float
    """When it was sent first."""
    text: bool = False
    """Sent as bare text: its answer is bare text too, and it gets no events."""
    stream: bool = False
    ttl_s: float | None = None
    expected: str | None = None
    """The answer; None where the library may say anything."""
    poison: bool = False
    """It kills the worker each time."""
    faulty: bool = False
    """The library misbehaves on it; its worker may end."""


@dataclass(slots=True)
class Said:
    """One message, as it came."""

    at: float
    topic: str
    payload: str
    """Bytes that are no UTF-8 are escaped."""
    retain: bool = False
    observer: bool = True
    """It came on the observer's own connection, not on that of the sender it was for."""


@dataclass(slots=True)
class Ran:
    """A prompt in the library; `end` is None when the process died in it."""

    words: str
    begin: float
    end: float | None = None


@dataclass(slots=True)
class Fault:
    """Something was broken from `begin`, and whole again at `end`."""

    kind: str
    begin: float
    end: float
    touches: list[str] = field(default_factory=list)
    """What it disturbs: daemon, broker, link (of the daemon), observer, clock, worker, disk, machine."""


@dataclass(slots=True)
class Link:
    """The daemon's connection changed: connected, serving (subscribed), down, or silent (half-open)."""

    at: float
    state: str


@dataclass(slots=True)
class Life:
    """A daemon process."""

    begin: float
    end: float | None = None


@dataclass(slots=True)
class Look:
    """What a new subscriber found in the retained topics."""

    after: float
    """The daemon's connection served since then; or, for the last look, the end of all work."""
    at: float
    topics: dict[str, str]
    """Payload by the last level."""
    wall_s: float
    """The daemon's wall clock."""
    worker_pid: int | None = None
    last: bool = False


@dataclass(slots=True)
class Recording:
    """All of it."""

    node: str
    keepalive_s: float = 2.0
    will_delay_s: float = 1.0
    abort_grace_s: float = 5.0
    lag_s: float = 0.0
    """Longest time that the recorder itself was kept from running; added to every bound."""
    slack_s: float = 0.0
    """Added to every bound as well: for a machine that is busy with other things."""
    asked: list[Asked] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    @property
    def grace_s(self) -> float:
        """Return what is added to every bound, seconds."""
        return self.lag_s + self.slack_s

    def disturbed(self, begin: float, end: float, *touched: str) -> bool:
        """Return whether a fault disturbed one of these between two times."""
        return any(
            fault.begin <= end and fault.end >= begin and not set(touched).isdisjoint(fault.touches)
            for fault in self.faults
        )

    def served(self, begin: float, end: float) -> bool:
        """Return whether the daemon's connection served all the time between two times."""
        state = ""
        for link in self.links:
            if link.at > end:
                break
            if link.at > begin and (state != "serving" or link.state != "gone"):
                return False
            state = state if link.state == "gone" else link.state
        return state == "serving"

    def keep(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Recording":
        """Read what `keep` has written."""
        members: dict[str, Any] = json.loads(path.read_text())
        for name, kind in get_type_hints(cls).items():
            parts = get_args(kind)
            if parts:
                members[name] = [parts[0](**item) for item in members[name]]
        return cls(**members)
