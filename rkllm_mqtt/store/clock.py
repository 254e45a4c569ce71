"""The journal clock: seconds that go on across restarts, whatever the wall clock does.

Deadlines, retention and expiry are measured with it. Many boards have no clock of their own: they boot
in the past and jump forward when the network is up, so wall time alone cannot say how old a job is.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

EARLIEST_TRUE_WALL_S = 1_735_689_600.0
"""2025-01-01: an earlier wall clock has not been set, and says nothing."""

LONGEST_DOWN_S = 366 * 86_400.0
"""A longer pause by the wall clock is rather a clock that was wrong before or is wrong now."""


# It also counts suspend; systems without it fall back to the plain monotonic clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _uptime_s() -> float:
    return time.clock_gettime(_CLOCK)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class ClockSource(Struct, frozen=True):
    """The machine's clocks; tests bring their own."""

    boot_id: Callable[[], str] = _boot_id
    """Differs after each boot of the machine; empty where it cannot be known."""
    uptime_s: Callable[[], float] = _uptime_s
    """Seconds since some point of this boot, never stepping."""
    wall_s: Callable[[], float] = time.time
    """Unix seconds, stepping at will."""


class Checkpoint(NamedTuple):
    """The journal clock beside the machine's clocks at one moment."""

    journal_s: float
    boot_id: str
    uptime_s: float
    wall_s: float


class JournalClock:
    """Counts from 0 at the journal's creation; may be read from any thread."""

    def __init__(self, source: ClockSource) -> None:
        self._source = source
        self._boot_id = source.boot_id()
        self._origin_s = -source.uptime_s()

    def now(self) -> float:
        """Return seconds; never less than an earlier call in this process."""
        return self._origin_s + self._source.uptime_s()

    def resume(self, last: Checkpoint) -> None:
        """Go on from `last`, counting the time in between as far as it can be known."""
        self._origin_s = last.journal_s + self._passed_s(last) - self._source.uptime_s()

    def checkpoint(self) -> Checkpoint:
        """Return the present moment, to be stored."""
        uptime_s = self._source.uptime_s()
        return Checkpoint(self._origin_s + uptime_s, self._boot_id, uptime_s, self._source.wall_s())

    def _passed_s(self, last: Checkpoint) -> float:
        if last.boot_id and last.boot_id == self._boot_id:
            # Only the daemon was away: the machine's own count is exact, whatever NTP did meanwhile.
            return max(0.0, self._source.uptime_s() - last.uptime_s)
        if last.wall_s < EARLIEST_TRUE_WALL_S:
            return 0.0
        passed_s = self._source.wall_s() - last.wall_s
        return passed_s if 0.0 < passed_s <= LONGEST_DOWN_S else 0.0


def load_checkpoint(connection: sqlite3.Connection) -> Checkpoint | None:
    """Return the stored moment; None in a new journal."""
    row = connection.execute("SELECT journal_s, boot_id, uptime_s, wall_s FROM clock").fetchone()
    return None if row is None else Checkpoint(*row)


def save_checkpoint(connection: sqlite3.Connection, moment: Checkpoint) -> None:
    """Store `moment` in place of the one before."""
    connection.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)", moment)
