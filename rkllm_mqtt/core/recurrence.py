"""Decide which times of a schedule are due, whatever the clock did meanwhile.

Pure. Times are Unix seconds of the wall clock. `last` is the newest time that was dealt with; a clock that
was set back makes it the present, so that a schedule goes on at once. A time that comes round twice that way
has the same name, and the journal knows its name.
"""

import hashlib
from collections.abc import Callable

from msgspec import Struct

_MOST = 100_000
"""Times looked at in one go: a schedule of each second within a day of grace."""


class Due(Struct, frozen=True):
    """What is to be done now."""

    times: tuple[float, ...]
    """To be asked for, the oldest first."""
    last: float
    """The newest time dealt with."""
    missed: int = 0
    """Times within the grace that are not asked for, because a newer one is."""


class Recurrence(Struct, frozen=True):
    """When a prompt is asked."""

    name: str
    next_after: Callable[[float], float | None]
    """The first time after another, or None; strictly rising."""
    grace_s: float
    coalesce: bool = True
    jitter_s: float = 0.0

    def delay_s(self, time: float) -> float:
        """Return how much later than its time it is asked: 0 to `jitter_s`, the same each time."""
        if not self.jitter_s:
            return 0.0
        digest = hashlib.sha256(f"{self.name} {time:.3f}".encode()).digest()
        return int.from_bytes(digest[:4], "big") / 0xFFFF_FFFF * self.jitter_s

    def due(self, last: float, now: float) -> Due:
        """Return the times after `last` that are due at `now`; older ones than the grace are let go."""
        if now < last:
            return Due((), now)
        times: list[float] = []
        time = self.next_after(max(last, now - self.grace_s - self.jitter_s))
        while time is not None and time + self.delay_s(time) <= now and len(times) < _MOST:
            times.append(time)
            time = self.next_after(time)
        if not times:
            return Due((), last)
        asked = times[-1:] if self.coalesce else times
        return Due(tuple(asked), times[-1], len(times) - len(asked))

    def next_at(self, last: float, now: float) -> float | None:
        """Return when it is asked next, its delay included; None when never again."""
        time = self.next_after(max(last, now - self.grace_s - self.jitter_s))
        return None if time is None else time + self.delay_s(time)
