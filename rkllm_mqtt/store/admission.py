"""Take a job in exactly once: by its id, or by how its id-less message arrived."""

import sqlite3

from msgspec import Struct

from rkllm_mqtt.core.job import Delivery, JobRecord, JobState, Priority
from rkllm_mqtt.store import jobs


class NewJob(Struct, frozen=True):
    """A valid request that is not stored yet; the fields are those of `JobRecord`."""

    target: str
    client: str
    id: str
    """Unique per target and client; made by us where the sender gave none."""
    sha256: bytes
    priority: Priority
    accepted_at: float
    deadline: float | None
    request: str
    address: str


class Receipt(Struct, frozen=True):
    """How a message without an id of its own arrived."""

    session: str
    """Names the MQTT session: packet ids mean nothing in another one."""
    mid: int
    """The packet id, 1 to 65,535; the broker uses it again after our PUBACK."""
    topic: str
    sha256: bytes
    redelivered: bool
    """The DUP flag. Without it an equal receipt is another message, and never matches."""


class Admission(Struct, frozen=True):
    """What the journal holds after the question: a known job, a fresh one, or nothing."""

    known: JobRecord | None
    fresh: bool = False
    """The job was stored by this call."""


def admit(
    connection: sqlite3.Connection,
    new: NewJob,
    receipt: Receipt | None,
    *,
    may_insert: bool,
    now: float,
    window_s: float,
) -> Admission:
    """Return the job that is there already, else store `new` if allowed.

    Args:
        connection: Within a transaction.
        new: What was asked for.
        receipt: For a request whose `id` is ours: it then decides about sameness instead of the id.
        may_insert: False only looks.
        now: Seconds of the journal clock.
        window_s: How old a receipt may be to prove a repeat.
    """
    if receipt is None:
        known = jobs.find(connection, new.target, new.client, new.id)
    elif receipt.redelivered:
        known = _received(connection, receipt, since=now - window_s)
    else:
        known = None
    if known is not None or not may_insert:
        return Admission(known)
    return Admission(_insert(connection, new, receipt, now), fresh=True)


def _received(connection: sqlite3.Connection, receipt: Receipt, *, since: float) -> JobRecord | None:
    """Return the newest job whose message arrived with the same marks."""
    row = connection.execute(
        "SELECT seq FROM receipts WHERE session = ? AND mid = ? AND topic = ? AND sha256 = ?"
        " AND received_at >= ? ORDER BY seq DESC LIMIT 1",
        (receipt.session, receipt.mid, receipt.topic, receipt.sha256, since),
    ).fetchone()
    return None if row is None else jobs.record(connection, row[0])


def _insert(connection: sqlite3.Connection, new: NewJob, receipt: Receipt | None, now: float) -> JobRecord:
    seq = connection.execute(
        "INSERT INTO jobs (target, client, id, sha256, state, priority, accepted_at, deadline, address)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.target,
            new.client,
            new.id,
            new.sha256,
            JobState.WAITING,
            new.priority.label,
            new.accepted_at,
            new.deadline,
            new.address,
        ),
    ).lastrowid
    if seq is None:
        raise sqlite3.DatabaseError("an inserted job has no row id")
    connection.execute("INSERT INTO requests (seq, request) VALUES (?, ?)", (seq, new.request))
    if receipt is not None:
        connection.execute(
            "INSERT INTO receipts (seq, session, mid, topic, sha256, received_at) VALUES (?, ?, ?, ?, ?, ?)",
            (seq, receipt.session, receipt.mid, receipt.topic, receipt.sha256, now),
        )
    return JobRecord(
        seq=seq,
        target=new.target,
        client=new.client,
        id=new.id,
        sha256=new.sha256,
        state=JobState.WAITING,
        priority=new.priority,
        attempt=0,
        crashes=0,
        cancel_requested=False,
        accepted_at=new.accepted_at,
        deadline=new.deadline,
        request=new.request,
        address=new.address,
        outcome=None,
        delivery=Delivery.NONE,
    )
