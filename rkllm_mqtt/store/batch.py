"""One transaction for many operations: each in its own savepoint, all in one commit."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from rkllm_mqtt.store.clock import Checkpoint, save_checkpoint
from rkllm_mqtt.store.errors import from_sqlite

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Runs on the writer's thread within a transaction. It may be run again when the first commit found no
space, so it takes nothing but its arguments and changes nothing but the database."""


class Asked(Struct, frozen=True):
    """An operation and who waits for it."""

    operation: Operation[Any]
    future: asyncio.Future[Any]


Answer = tuple[asyncio.Future[Any], Any, BaseException | None]
"""A future and what it gets: a result, or an error if there is one."""


def commit(
    connection: sqlite3.Connection, batch: Sequence[Asked], moment: Callable[[], Checkpoint]
) -> tuple[list[Answer], bool]:
    """Run and commit `batch` in order; return the answers and whether the database changed.

    Args:
        connection: In autocommit mode, without a transaction.
        batch: Operations; one that raises is undone alone.
        moment: The clock reading to store with a change.

    Raises:
        sqlite3.Error: The disk or the database failed. Nothing of the batch is stored.
    """
    changes = connection.total_changes
    try:
        # A write lock at once: a read that becomes a write could otherwise meet a stale snapshot.
        connection.execute("BEGIN IMMEDIATE")
        answers = [_run_alone(connection, asked) for asked in batch]
        has_changed = connection.total_changes != changes
        if has_changed:
            save_checkpoint(connection, moment())
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors of the disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers, has_changed


def resolve(answers: Sequence[Answer]) -> None:
    """Hand the answers over, in order; on the loop's thread."""
    for future, result, error in answers:
        if future.done():  # cancelled by who asked
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _run_alone(connection: sqlite3.Connection, asked: Asked) -> Answer:
    """Run one operation in its savepoint; what it raises becomes its answer.

    Raises:
        sqlite3.Error: The disk or the database failed, and with it the whole transaction.
    """
    connection.execute("SAVEPOINT operation")
    try:
        result = asked.operation(connection)
    except sqlite3.IntegrityError as error:
        failure: Exception = from_sqlite(error)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
        failure = error
    else:
        connection.execute("RELEASE operation")
        return asked.future, result, None
    connection.execute("ROLLBACK TO operation")
    connection.execute("RELEASE operation")
    return asked.future, None, failure
