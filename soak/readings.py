"""What is read of the daemon while it soaks, and whether it stays the same."""

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.child import footprint

MB = 1_048_576
RSS_TOLERANCE = 0.03
"""The last quarter's memory may differ from the second's by so much."""
POOLED_THREADS = 6
"""The event loop, the journal, one for template files, three for calls that block: some of them begin when
they are first needed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the daemon."""

    at_s: float
    rss_mb: float
    descriptors: int
    threads: int
    tasks: int | None
    """Tasks of its event loop, as `stats` told last."""
    journal_mb: float
    """The database with its write-ahead log."""


def read(pid: int, journal: Path, tasks: int | None, at_s: float) -> Reading:
    """Look at a daemon.

    Raises:
        OSError: It is gone.
    """
    size = 0
    for file in (journal, Path(f"{journal}-wal")):
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return Reading(
        at_s,
        footprint(pid).rss_mb,
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        len(list(Path(f"/proc/{pid}/task").iterdir())),
        tasks,
        size / MB,
    )


@dataclass(frozen=True, slots=True)
class Quarter:
    """A quarter of the time: the mean of the memory, the highest of the rest."""

    rss_mb: float
    descriptors: int
    threads: int
    tasks: int
    journal_mb: float


def quarters(readings: Sequence[Reading]) -> list[Quarter]:
    """Return the four quarters of what was read."""
    size = len(readings) / 4
    return [_quarter(readings[round(n * size) : round((n + 1) * size)]) for n in range(4)]


def _quarter(readings: Sequence[Reading]) -> Quarter:
    def highest(value: Callable[[Reading], float]) -> float:
        return max(map(value, readings))

    return Quarter(
        statistics.fmean(one.rss_mb for one in readings),
        int(highest(lambda one: one.descriptors)),
        int(highest(lambda one: one.threads)),
        int(highest(lambda one: one.tasks or 0)),
        highest(lambda one: one.journal_mb),
    )


def growth(
    before: Reading,
    over_time: Sequence[Quarter],
    after: Reading,
    *,
    rss_tolerance: float = RSS_TOLERANCE,
    shows_retention: bool = True,
) -> list[str]:
    """Return what has grown, as sentences; none when the daemon is afterwards what it was before.

    Args:
        before: Idle, before the first prompt.
        over_time: The quarters.
        after: Idle, after the last prompt.
        rss_tolerance: Part of the second quarter's memory by which the last one's may be larger.
        shows_retention: The time was long enough for the journal to reach its size.
    """
    _, second, _, last = over_time
    found = []
    if last.rss_mb > second.rss_mb * (1 + rss_tolerance):
        found.append(f"memory: {second.rss_mb:.1f} MB in the second quarter, {last.rss_mb:.1f} in the last")
    if after.descriptors > before.descriptors:
        found.append(f"descriptors: {before.descriptors} before, {after.descriptors} after")
    if after.threads > max(before.threads, POOLED_THREADS):
        found.append(f"threads: {before.threads} before, {after.threads} after")
    if before.tasks is not None and after.tasks is not None and after.tasks > before.tasks:
        found.append(f"tasks: {before.tasks} before, {after.tasks} after")
    # One page more or less in the log is no growth.
    if shows_retention and last.journal_mb > second.journal_mb * 1.25 + 1:
        found.append(
            f"journal: {second.journal_mb:.1f} MB in the second quarter, {last.journal_mb:.1f} in the last"
        )
    return found
