"""SQL beside the life of a job: retention, counts, small facts, and the `last` topics that are set."""

import sqlite3

from msgspec import Struct

from rkllm_mqtt.core.job import JobState

_FREE_PAGES = 256
# A freed page is used again by the next job; only more than this (1 MB) goes back to the disk.


class Last(Struct, frozen=True):
    """A retained `last` topic that is set."""

    target: str
    client: str
    expires_at: float
    """Seconds of the journal clock."""


def purge(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove at most `limit` of the oldest settled jobs finished before `before`; return how many.

    A job whose outcome waits for the broker is not settled and stays.
    """
    removed = connection.execute(
        "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs"
        " WHERE finished_at IS NOT NULL AND delivery <> 'pending' AND finished_at < ?"
        " ORDER BY finished_at LIMIT ?)",
        (before, limit),
    ).rowcount
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free > _FREE_PAGES:
        # Python steps a statement without columns once, and each step of this one frees one page.
        for _ in range(_FREE_PAGES):
            connection.execute("PRAGMA incremental_vacuum(1)")
    return removed


def known_ids(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return target, client and id of every job."""
    return connection.execute("SELECT target, client, id FROM jobs").fetchall()


def oldest(connection: sqlite3.Connection) -> float | None:
    """Return when the settled job that is removed next has finished, seconds of the journal clock."""
    (finished_at,) = connection.execute(
        "SELECT min(finished_at) FROM jobs WHERE finished_at IS NOT NULL AND delivery <> 'pending'"
    ).fetchone()
    return None if finished_at is None else float(finished_at)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the database without the pages that are free to be written again."""
    sizes = [
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    ]
    return (sizes[0] - sizes[1]) * sizes[2]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of jobs in each state (by its word), and `undelivered` outcomes."""
    found = {state.value: 0 for state in JobState} | {"undelivered": 0}
    # One index-only scan for each part of the table; the three parts are disjoint and complete.
    for part in (
        "finished_at IS NULL",
        "delivery = 'pending'",
        "finished_at IS NOT NULL AND delivery <> 'pending'",
    ):
        rows = connection.execute(f"SELECT state, count(*) FROM jobs WHERE {part} GROUP BY state").fetchall()
        for state, number in rows:
            found[state] += number
        if part == "delivery = 'pending'":
            found["undelivered"] = sum(number for _, number in rows)
    return found


def load_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Return all small facts."""
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Store one small fact in place of an older one."""
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def set_last(connection: sqlite3.Connection, last: Last) -> None:
    """Note that a `last` topic is set, or set anew."""
    connection.execute(
        "INSERT OR REPLACE INTO lasts (target, client, expires_at) VALUES (?, ?, ?)",
        (last.target, last.client, last.expires_at),
    )


def clear_last(connection: sqlite3.Connection, target: str, client: str) -> None:
    """Note that a `last` topic is cleared; without effect when it was not set."""
    connection.execute("DELETE FROM lasts WHERE target = ? AND client = ?", (target, client))


def lasts(connection: sqlite3.Connection) -> list[Last]:
    """Return the `last` topics that are set, the first to expire first."""
    rows = connection.execute(
        "SELECT target, client, expires_at FROM lasts ORDER BY expires_at, target, client"
    )
    return [Last(*row) for row in rows]
