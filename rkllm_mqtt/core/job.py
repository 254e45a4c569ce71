"""What was promised: a job, its states, and the only ways between them."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum

from msgspec import Struct


class Priority(IntEnum):
    """Class of service; the lower number runs first."""

    INTERACTIVE = 0
    NORMAL = 1
    BACKGROUND = 2

    @property
    def label(self) -> str:
        """Return the word used on the wire: `interactive`, `normal` or `background`."""
        return self.name.lower()


class JobState(StrEnum):
    """Where a job stands; the last four are ends and hold a stored outcome."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIMED = "claimed"
    REQUEUED = "requeued"
    COMPLETED = "completed"
    GAVE_UP = "gave_up"
    CANCEL_CONFIRMED = "cancel_confirmed"
    DEADLINE_PASSED = "deadline_passed"


class Delivery(IntEnum):
    """What became of a stored outcome on its way to the broker."""

    NONE = 0
    """There is no outcome yet, or its sender asked for QoS 0: nothing waits in the outbox."""
    PENDING = 1
    """In the outbox until the broker's PUBACK."""
    DONE = 2
    """The broker acknowledged it."""
    REFUSED = 3
    """The broker said it may not be published; a resend of the id asks again."""


TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = {
    (JobState.WAITING, JobEvent.CLAIMED): JobState.RUNNING,
    (JobState.WAITING, JobEvent.GAVE_UP): JobState.FAILED,  # cannot be rendered, or its model is gone
    (JobState.WAITING, JobEvent.CANCEL_CONFIRMED): JobState.CANCELLED,
    (JobState.WAITING, JobEvent.DEADLINE_PASSED): JobState.EXPIRED,
    (JobState.RUNNING, JobEvent.REQUEUED): JobState.WAITING,  # slot lost, attempts remain
    (JobState.RUNNING, JobEvent.COMPLETED): JobState.SUCCEEDED,
    (JobState.RUNNING, JobEvent.GAVE_UP): JobState.FAILED,
    (JobState.RUNNING, JobEvent.CANCEL_CONFIRMED): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.DEADLINE_PASSED): JobState.EXPIRED,
}
"""An absent pair is a bug: `after` raises, and nothing is stored."""


class IllegalTransition(Exception):
    """An event that cannot happen in this state."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"{event} cannot happen to a {state} job")
        self.state = state
        self.event = event


def after(state: JobState, event: JobEvent) -> JobState:
    """Return the state that follows.

    Raises:
        IllegalTransition: The table has no such pair.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


class JobRecord(Struct, frozen=True):
    """One row of the journal."""

    seq: int
    """Order of acceptance, rising for ever, never reused."""
    target: str
    """The node or group name of the request topic."""
    client: str
    id: str
    sha256: bytes
    """Of the request's payload bytes: the same id with another body is a conflict."""
    state: JobState
    priority: Priority
    attempt: int
    """Runs begun so far; 0 before the first."""
    crashes: int
    """Runs in which the worker was lost."""
    cancel_requested: bool
    accepted_at: float
    """Unix seconds of the wall clock, for people."""
    deadline: float | None
    """Seconds of the journal clock (`Journal.now`), which also counts across restarts."""
    request: str
    """The request in canonical JSON; opaque to the journal."""
    address: str
    """Where the answers go, in canonical JSON; opaque to the journal."""
    outcome: bytes | None
    """The final's payload, stored before it is sent; None until then."""
    delivery: Delivery
    carried: str | None = None
    """An interrupted answer in canonical JSON; opaque to the journal."""
