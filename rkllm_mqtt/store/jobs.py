"""SQL on jobs: look up, move between states, deliver. Every function runs within a transaction of `Writer`.

No state is written but the one that `core.job.after` returns.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from rkllm_mqtt.core.job import TRANSITIONS, Delivery, JobEvent, JobRecord, JobState, Priority, after
from rkllm_mqtt.store.errors import AlreadyFinished, NotFinished, UnknownJob

ENDS = frozenset(JobState) - {state for state, _ in TRANSITIONS}
"""States that nothing follows."""

_RECORDS = """
SELECT jobs.seq, target, client, id, sha256, state, priority, attempt, crashes, cancel_requested,
       accepted_at, deadline, request, address, outcome, delivery, carried
FROM jobs JOIN requests ON requests.seq = jobs.seq LEFT JOIN outcomes ON outcomes.seq = jobs.seq
     LEFT JOIN carried ON carried.seq = jobs.seq
"""

_STATES = {state.value: state for state in JobState}
_PRIORITIES = {priority.label: priority for priority in Priority}
_DELIVERIES = {delivery.name.lower(): delivery for delivery in Delivery}


class Recovered(Struct, frozen=True):
    """What a start finds to go on with."""

    waiting: list[JobRecord]
    """In order of acceptance; those that were running are waiting again, their attempt kept."""
    undelivered: list[int]
    """The `seq` of each outcome that the broker has not acknowledged, in order of acceptance."""


def find(connection: sqlite3.Connection, target: str, client: str, request_id: str) -> JobRecord | None:
    """Return the job of this id, finished or not."""
    where = "WHERE target = ? AND client = ? AND id = ?"
    return next(_select(connection, where, (target, client, request_id)), None)


def record(connection: sqlite3.Connection, seq: int) -> JobRecord:
    """Return job `seq`.

    Raises:
        UnknownJob: There is none.
    """
    found = next(_select(connection, "WHERE jobs.seq = ?", (seq,)), None)
    if found is None:
        raise UnknownJob(seq)
    return found


def claim(connection: sqlite3.Connection, seq: int, attempt: int) -> None:
    """Mark run number `attempt` as begun."""
    state = after(_state(connection, seq), JobEvent.CLAIMED)
    connection.execute("UPDATE jobs SET state = ?, attempt = ? WHERE seq = ?", (state, attempt, seq))


def requeue(connection: sqlite3.Connection, seq: int, crashes: int, carried: str | None = None) -> None:
    """Put a running job back.

    Args:
        connection: Within a transaction.
        seq: The job.
        crashes: Runs in which the worker was lost.
        carried: What its answer goes on with; an empty text forgets that, None leaves it as it is.
    """
    state = after(_state(connection, seq), JobEvent.REQUEUED)
    connection.execute("UPDATE jobs SET state = ?, crashes = ? WHERE seq = ?", (state, crashes, seq))
    if carried is not None:
        connection.execute("DELETE FROM carried WHERE seq = ?", (seq,))
    if carried:
        connection.execute("INSERT INTO carried (seq, carried) VALUES (?, ?)", (seq, carried))


def request_cancel(connection: sqlite3.Connection, seq: int) -> bool:
    """Note that the sender wants no answer any more; False when the outcome was stored first."""
    if _state(connection, seq) in ENDS:
        return False
    connection.execute("UPDATE jobs SET cancel_requested = 1 WHERE seq = ?", (seq,))
    return True


def readdress(connection: sqlite3.Connection, seq: int, address: str) -> bool:
    """Send the answers of an unfinished job elsewhere; False, and no change, for a finished one."""
    if _state(connection, seq) in ENDS:
        return False
    connection.execute("UPDATE jobs SET address = ? WHERE seq = ?", (address, seq))
    return True


def finish(
    connection: sqlite3.Connection,
    seq: int,
    event: JobEvent,
    outcome: bytes,
    delivery: Delivery,
    finished_at: float,
) -> None:
    """Store the one outcome together with the end state.

    Args:
        connection: Within a transaction.
        seq: The job.
        event: One that leads to an end.
        outcome: The final's payload, as it will be published.
        delivery: PENDING puts it into the outbox, NONE does not.
        finished_at: Seconds of the journal clock; retention counts from here.

    Raises:
        AlreadyFinished: There is an outcome; it stays the only one.
        IllegalTransition: The table has no such pair.
        ValueError: `event` leads to no end, or `delivery` is neither NONE nor PENDING.
    """
    state = _state(connection, seq)
    if state in ENDS:
        raise AlreadyFinished(seq, state)
    end = after(state, event)
    if end not in ENDS:
        raise ValueError(f"{event} does not finish a job")
    if delivery not in (Delivery.NONE, Delivery.PENDING):
        raise ValueError(f"an outcome cannot be {delivery.name} before it is stored")
    connection.execute(
        "UPDATE jobs SET state = ?, delivery = ?, finished_at = ? WHERE seq = ?",
        (end, delivery.name.lower(), finished_at, seq),
    )
    connection.execute("INSERT INTO outcomes (seq, outcome) VALUES (?, ?)", (seq, outcome))
    connection.execute("DELETE FROM carried WHERE seq = ?", (seq,))


def set_delivery(connection: sqlite3.Connection, seq: int, delivery: Delivery) -> None:
    """Note what became of a stored outcome, or put it into the outbox again (PENDING).

    Raises:
        NotFinished: There is no outcome.
    """
    state = _state(connection, seq)
    if state not in ENDS:
        raise NotFinished(seq, state)
    connection.execute("UPDATE jobs SET delivery = ? WHERE seq = ?", (delivery.name.lower(), seq))


def recover(connection: sqlite3.Connection) -> Recovered:
    """Put running jobs back and return the work and the outbox; once, before anything runs."""
    running = "SELECT seq, crashes FROM jobs WHERE finished_at IS NULL AND state = ?"
    for seq, crashes in connection.execute(running, (JobState.RUNNING,)).fetchall():
        requeue(connection, seq, crashes)
    return Recovered(
        waiting=list(_select(connection, "WHERE finished_at IS NULL ORDER BY jobs.seq")),
        undelivered=[
            seq
            for (seq,) in connection.execute("SELECT seq FROM jobs WHERE delivery = 'pending' ORDER BY seq")
        ],
    )


def _state(connection: sqlite3.Connection, seq: int) -> JobState:
    row = connection.execute("SELECT state FROM jobs WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        raise UnknownJob(seq)
    return _STATES[row[0]]


def _select(
    connection: sqlite3.Connection, where: str, parameters: tuple[object, ...] = ()
) -> Iterator[JobRecord]:
    return map(_from_row, connection.execute(_RECORDS + where, parameters))


def _from_row(row: tuple[Any, ...]) -> JobRecord:
    (seq, target, client, request_id, sha256, state, priority, attempt, crashes, cancel_requested) = row[:10]
    accepted_at, deadline, request, address, outcome, delivery, carried = row[10:]
    return JobRecord(
        seq=seq,
        target=target,
        client=client,
        id=request_id,
        sha256=sha256,
        state=_STATES[state],
        priority=_PRIORITIES[priority],
        attempt=attempt,
        crashes=crashes,
        cancel_requested=bool(cancel_requested),
        accepted_at=accepted_at,
        deadline=deadline,
        request=request,
        address=address,
        outcome=outcome,
        delivery=_DELIVERIES[delivery],
        carried=carried,
    )
