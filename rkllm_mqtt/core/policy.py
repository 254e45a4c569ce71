"""Decide what the slot runs next, and what follows when the slot is lost.

Pure: jobs and a time go in, a decision comes out. `dispatcher` acts on it, the journal makes it durable.

Rule 1: every reason to choose, requeue, expire or give up a job is in this file.
Rule 2: within a class the order of acceptance holds; a class runs only when the higher ones are empty.
"""

from dataclasses import dataclass

from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.waiting import Job, WaitingJobs


def choose_next(waiting: WaitingJobs) -> Job | None:
    """Return the job to run next: the highest class, then the longest wait; None when nothing waits."""
    for priority in Priority:
        job = waiting.first(priority)
        if job is not None:
            return job
    return None


def should_replace(staged: Job, waiting: WaitingJobs) -> bool:
    """Return whether a staged job that has not begun must give way to a job of a higher class."""
    best = choose_next(waiting)
    return best is not None and best.priority < staged.priority


def is_expired(job: Job, now: float) -> bool:
    """Return whether the deadline of a job has passed; `now` in seconds of the journal clock."""
    return now >= job.deadline


@dataclass(frozen=True, slots=True)
class Retry:
    """The job runs again."""


@dataclass(frozen=True, slots=True)
class GiveUp:
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
