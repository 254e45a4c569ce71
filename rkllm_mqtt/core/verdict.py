"""Decide what the end of a run means for its job.

Pure: how the run ended goes in; the end of the job, another attempt, or a return to the queue comes out.
"""

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import JobEvent


class Ended(Struct, frozen=True):
    """The job ends so."""

    event: JobEvent
    finish_reason: str
    fault: Fault | None = None


class Lost(Struct, frozen=True):
    """The run is void through a fault of the slot; `after_slot_lost` says what follows."""

    reason: str


class PutBack(Struct, frozen=True):
    """The run never began, or the daemon is stopping: the job waits again and loses nothing."""


class Preempted(Struct, frozen=True):
    """The run gave way to another: the job waits again and goes on where it was."""


Verdict = Ended | Lost | PutBack | Preempted


class RunFacts(Struct, frozen=True):
    """How a run ended, in words of no other layer."""

    reason: str
    """stop, length, repetition, aborted, preempted, revoked, context, unsupported, adapter, error; or lost:
    no worker."""
    message: str = ""
    hint: str = ""
    began: bool = True
    cancelled: bool = False
    """The sender had asked for it before the end."""
    expired: bool = False
    timed_out: bool = False
    stalled: str | None = None
    stopping: bool = False
    """The daemon aborted it to end in time."""
    preempting: bool = False
    """It was aborted for another run, since it cannot be interrupted at a token."""
    prime: bool = False
    """It only makes a prefix ready: whoever comes before it was done, comes for that."""


class Again(Struct, frozen=True):
    """The answer has not the asked shape: one more run is to correct it."""

    problem: str


def judge_shape(verdict: Ended, problem: str | None, *, corrected: bool) -> Ended | Again:
    """Return what becomes of a job whose answer was held against the shape that was asked for.

    Args:
        verdict: What the run's end means; an answer that did not end by itself is not worth a correction.
        problem: What is wrong with the answer; None when nothing is.
        corrected: This is the second answer already.
    """
    if verdict.finish_reason != "stop":
        return _invalid(f"the answer ended by `{verdict.finish_reason}` before it was whole")
    if problem is None:
        return verdict
    return _invalid(f"the answer has not the asked shape: {problem}") if corrected else Again(problem)


def settle(verdict: Ended, *, calls: int, must_call: bool) -> Ended:
    """Return what becomes of a job whose run has ended so, in view of what its answer holds.

    Args:
        verdict: What the run's end means.
        calls: Tool calls in the answer.
        must_call: The sender asked for at least one.
    """
    if verdict.event is not JobEvent.COMPLETED:
        return verdict
    if must_call and not calls:
        return _NO_CALL
    return (
        replace(verdict, finish_reason="tool_calls") if calls and verdict.finish_reason == "stop" else verdict
    )


CANCELLED = Ended(
    JobEvent.CANCEL_CONFIRMED, "cancelled", Fault(Code.CANCELLED, "the sender cancelled this request")
)
EXPIRED = Ended(
    JobEvent.DEADLINE_PASSED,
    "expired",
    Fault(
        Code.EXPIRED, "the deadline of this request has passed", "Raise `ttl_s`, or its MQTT message expiry."
    ),
)


def _invalid(message: str) -> Ended:
    hint = "Raise `max_tokens`, ask for less or more plainly, or use a larger model."
    return Ended(JobEvent.GAVE_UP, "error", Fault(Code.INVALID_OUTPUT, message, hint))


_NO_CALL = _invalid("a tool call was asked for, and the model made none")
_TIMED_OUT = Ended(
    JobEvent.GAVE_UP,
    "timeout",
    Fault(
        Code.TIMEOUT,
        "the answer took longer than a run may",
        "Lower `max_tokens`, or raise `runtime.run_timeout_s`.",
    ),
)


def judge(run: RunFacts) -> Verdict:
    """Return what the end of a run means.

    A natural end wins over a cancel that came too late; a cancel wins over every fault.
    """
    if run.reason in ("stop", "length", "repetition"):
        return Ended(JobEvent.COMPLETED, run.reason)
    if run.cancelled:
        return CANCELLED
    if run.expired:
        return EXPIRED
    if run.stopping or run.reason == "revoked" or not run.began:
        return PutBack()
    if run.prime and run.reason == "preempted":
        return Ended(JobEvent.COMPLETED, "stop")
    if run.reason == "preempted" or (run.preempting and run.reason == "aborted" and not run.stalled):
        return Preempted()
    if run.timed_out:
        return _TIMED_OUT
    if run.reason == "context":
        hint = "Shorten the prompt or the history, or raise `context_tokens` of the model."
        return Ended(JobEvent.GAVE_UP, "error", Fault(Code.CONTEXT_OVERFLOW, run.message, hint))
    if run.reason == "unsupported":
        return Ended(JobEvent.GAVE_UP, "error", Fault(Code.UNSUPPORTED, run.message, run.hint))
    if run.reason == "adapter":
        hint = run.hint or "Correct its `file` in the configuration of the model."
        return Ended(JobEvent.GAVE_UP, "error", Fault(Code.MODEL_ERROR, run.message, hint))
    return Lost(run.stalled or run.message or "the run was aborted")


class Retry(Struct, frozen=True):
    """The job runs again."""


class GiveUp(Struct, frozen=True):
    """The job ends with this fault."""

    fault: Fault


def after_slot_lost(crashes: int, max_attempts: int, reason: str) -> Retry | GiveUp:
    """Return what follows when the worker was lost in a job's run.

    Args:
        crashes: Runs of this job in which the worker was lost, this one included.
        max_attempts: So many losses end the job: it probably kills the worker, and its neighbours wait.
        reason: What happened, for the sender.
    """
    if crashes < max_attempts:
        return Retry()
    often = "once" if crashes == 1 else f"{crashes} times"
    return GiveUp(
        Fault(
            Code.SLOT_FAILED,
            f"the model process was lost {often} while it worked on this prompt: {reason}",
            "Change the prompt or its parameters; `rkllm-mqtt doctor` looks at the board.",
        )
    )
