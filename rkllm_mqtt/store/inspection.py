"""Inspect a journal: is the file sound, could the daemon have written each row, how large is it."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.job import TRANSITIONS, Delivery, JobState, Priority
from rkllm_mqtt.store.clock import load_checkpoint
from rkllm_mqtt.store.jobs import ENDS
from rkllm_mqtt.store.reading import schema_of

_MOST_EXAMPLES = 5
_MOST_DEFECTS = 100


class Problem(Struct, frozen=True):
    """One kind of defect."""

    code: str
    sentence: str
    count: int
    examples: tuple[str, ...]
    """Some of the rows, or what SQLite says; never content of a prompt or an answer."""


class Inspection(Struct, frozen=True):
    """What was found; sizes are bytes."""

    schema: int
    problems: tuple[Problem, ...]
    jobs: dict[str, int]
    """By state, and `undelivered`."""
    file_bytes: int
    wal_bytes: int
    ballast_bytes: int
    free_bytes: int
    """Within the file, used again by the next jobs."""
    request_bytes: int
    outcome_bytes: int
    oldest_finished_s: float | None
    """Age of the finished job that is kept longest, by the journal clock; None without one."""


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


_AFTER_A_RUN = frozenset({JobState.RUNNING}) | {
    end
    for end in ENDS
    if {before for (before, _), after in TRANSITIONS.items() if after is end} == {JobState.RUNNING}
}
# The run itself, and the ends that only a run leads to: such a job has an attempt.

_WORDS = (
    # SQLite does not look at CHECK constraints on a read-only connection, so they are asked again here.
    f"state NOT IN ({_quoted(JobState)})"
    f" OR (state IN ({_quoted(ENDS)})) = (finished_at IS NULL)"
    f" OR priority NOT IN ({_quoted(priority.label for priority in Priority)})"
    f" OR delivery NOT IN ({_quoted(delivery.name.lower() for delivery in Delivery)})"
    " OR (finished_at IS NULL AND delivery <> 'none')"
)

_RULES = (
    ("illegal_state", "jobs stand in a state that does not exist", f"SELECT seq FROM jobs WHERE {_WORDS}"),
    (
        "no_request",
        "jobs have no request, so they would be forgotten at the next start",
        "SELECT jobs.seq FROM jobs LEFT JOIN requests ON requests.seq = jobs.seq WHERE requests.seq IS NULL",
    ),
    (
        "no_outcome",
        "finished jobs have no outcome",
        "SELECT jobs.seq FROM jobs LEFT JOIN outcomes ON outcomes.seq = jobs.seq"
        f" WHERE outcomes.seq IS NULL AND state IN ({_quoted(ENDS)})",
    ),
    (
        "early_outcome",
        "unfinished jobs have an outcome already",
        "SELECT jobs.seq FROM jobs JOIN outcomes ON outcomes.seq = jobs.seq"
        f" WHERE state NOT IN ({_quoted(ENDS)})",
    ),
    (
        "never_ran",
        "jobs stand in a state that only a run leads to, without an attempt",
        f"SELECT seq FROM jobs WHERE attempt < 1 AND state IN ({_quoted(_AFTER_A_RUN)})",
    ),
    (
        "finished_in_future",
        "jobs finished later than the journal clock says that it is",
        "SELECT seq FROM jobs WHERE finished_at > (SELECT journal_s FROM clock)",
    ),
    (
        "number_reused",
        "jobs have a number that would be given again",
        "SELECT seq FROM jobs WHERE seq >"
        " (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs')",
    ),
    (
        "no_clock",
        "the journal clock was never stored",
        "SELECT 'clock' WHERE NOT EXISTS (SELECT 1 FROM clock)",
    ),
)  # code, sentence, and a query that finds the rows which break it


def inspect(connection: sqlite3.Connection, path: Path) -> Inspection:
    """Look at everything in one snapshot; takes about a second for 100 MB.

    Args:
        connection: From `reader`, outside of a transaction.
        path: The same journal, for the sizes of its files.

    Raises:
        sqlite3.Error: The file is so damaged that not even its figures can be read.
    """
    connection.execute("BEGIN")
    try:
        problems = list(_defects(connection))
        if not problems:
            problems = [
                *_broken_rules(connection),
                *_unreadable(connection),
                *_unreadable_prefixes(connection),
            ]
        free, page_bytes = _one(connection, "PRAGMA freelist_count"), _one(connection, "PRAGMA page_size")
        return Inspection(
            schema=schema_of(connection),
            problems=tuple(problems),
            jobs=_counts(connection),
            file_bytes=_size(path),
            wal_bytes=_size(Path(f"{path}-wal")),
            ballast_bytes=_size(Path(f"{path}.ballast")),
            free_bytes=int(free) * int(page_bytes),
            request_bytes=int(_one(connection, "SELECT coalesce(sum(length(request)), 0) FROM requests")),
            outcome_bytes=int(_one(connection, "SELECT coalesce(sum(length(outcome)), 0) FROM outcomes")),
            oldest_finished_s=_oldest_s(connection),
        )
    finally:
        connection.execute("ROLLBACK")


def _defects(connection: sqlite3.Connection) -> Iterator[Problem]:
    """Yield what SQLite itself finds: pages, indexes, orphans."""
    said = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_MOST_DEFECTS})")]
    if said != ["ok"]:
        yield _problem("damaged", "places of the file are damaged", said)
    orphans = [f"{row[0]} {row[1]}" for row in connection.execute("PRAGMA foreign_key_check")]
    if orphans:
        yield _problem("orphans", "rows belong to a job that is not there", orphans)


def _broken_rules(connection: sqlite3.Connection) -> Iterator[Problem]:
    for code, sentence, query in _RULES:
        rows = [str(row[0]) for row in connection.execute(query)]
        if rows:
            yield _problem(code, sentence, rows)


def _unreadable(connection: sqlite3.Connection) -> Iterator[Problem]:
    """Yield the unfinished jobs that the next start could not take up."""
    rows = connection.execute(
        "SELECT jobs.seq, target, client, request, address FROM jobs JOIN requests ON requests.seq = jobs.seq"
        " WHERE finished_at IS NULL"
    )
    found = []
    for seq, target, client, request, address in rows:
        try:
            ChatRequest.from_json(request)
            Address.from_json(address, target, client)
        except (ValueError, KeyError, TypeError, AttributeError):
            found.append(str(seq))
    if found:
        yield _problem("unreadable", "unfinished jobs cannot be read", found)


def _unreadable_prefixes(connection: sqlite3.Connection) -> Iterator[Problem]:
    """Yield the registered prefixes that the next start would forget."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'prefixes'").fetchone():
        return  # an older schema
    found = []
    for client, name, request in connection.execute("SELECT client, name, request FROM prefixes"):
        try:
            ChatRequest.from_json(request)
        except (ValueError, KeyError, TypeError, AttributeError):
            found.append(f"{client}/{name}")
    if found:
        yield _problem("unreadable_prefixes", "registered prefixes cannot be read", found)


def _problem(code: str, sentence: str, rows: list[str]) -> Problem:
    return Problem(code, sentence, len(rows), tuple(rows[:_MOST_EXAMPLES]))


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return what `Journal.counts` does, also of rows that it could not understand."""
    found = {state.value: 0 for state in JobState}
    found |= dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    undelivered = _one(connection, "SELECT count(*) FROM jobs WHERE delivery = 'pending'")
    return found | {"undelivered": int(undelivered)}


def _oldest_s(connection: sqlite3.Connection) -> float | None:
    clock = load_checkpoint(connection)
    # The index of settled jobs begins with the oldest one.
    row = connection.execute(
        "SELECT finished_at FROM jobs WHERE finished_at IS NOT NULL AND delivery <> 'pending'"
        " ORDER BY finished_at LIMIT 1"
    ).fetchone()
    return None if clock is None or row is None else clock.journal_s - float(row[0])


def _one(connection: sqlite3.Connection, query: str) -> float:
    return float(connection.execute(query).fetchone()[0])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
