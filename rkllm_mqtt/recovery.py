"""Take up the unfinished jobs that an earlier process left in the journal."""

import json
import time
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from rkllm_mqtt.core.carried import Carried
from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import JobEvent, JobRecord
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.verdict import CANCELLED, Ended
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.deadlines import Deadlines
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.outcomes import Outcomes

log = get_logger(__name__)

UNREADABLE = Fault(
    Code.INTERNAL,
    "another version of the daemon stored this prompt in a way that this one cannot read",
    "Send it again with a new id.",
)

_EVENTS_PER_BOOT = 1_000_000
"""The `n` of a job's events must go on rising after a restart, though nobody stored the last one."""


def revive(record: JobRecord, boots: int, now: float) -> Job:
    """Return the live job of a journal row; `now` in seconds of the journal clock."""
    waited_s = max(0.0, time.time() - record.accepted_at)  # a board without a clock boots in the past
    return Job(
        seq=record.seq,
        id=record.id,
        request=ChatRequest.from_json(record.request),
        address=Address.from_json(record.address, record.target, record.client),
        priority=record.priority,
        accepted_at=record.accepted_at,
        queued_at=now - waited_s,
        deadline=record.deadline if record.deadline is not None else float("inf"),
        attempt=record.attempt,
        crashes=record.crashes,
        carried=_carried(record),
        events=boots * _EVENTS_PER_BOOT,
    )


def _carried(record: JobRecord) -> Carried | None:
    """Return an interrupted answer; one that cannot be read begins anew."""
    if record.carried is None:
        return None
    try:
        return Carried.from_json(record.carried)
    except (ValueError, KeyError, TypeError) as exc:
        log.warning("answer_begins_anew", job=record.seq, error=type(exc).__name__)
        return None


def _revive_to_end(record: JobRecord, boots: int, now: float) -> Job:
    """Return a job that cannot run, only be answered: what was asked is unreadable.

    Another version of the daemon may have stored what this one does not know. A start that ended with
    that error would end again and again, and nobody would be answered.
    """
    try:
        values = json.loads(record.request)
        is_text = bool(values["text"])
    except (ValueError, KeyError, TypeError):
        is_text = False
    nothing = ChatRequest(messages=({"role": "user", "content": ""},), model="", max_tokens=1, text=is_text)
    return revive(replace(record, request=nothing.to_json()), boots, now)


def _revive_all(records: Sequence[JobRecord], boots: int, now: float) -> tuple[list[Job], set[int]]:
    """Return the jobs, and the `seq` of those that are unreadable."""
    jobs, unreadable = [], set()
    for record in records:
        try:
            jobs.append(revive(record, boots, now))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            # The kind only: its text may hold what was asked.
            log.error("job_unreadable", job=record.seq, client=record.client, error=type(exc).__name__)
            jobs.append(_revive_to_end(record, boots, now))
            unreadable.add(record.seq)
    return jobs, unreadable


async def recover_jobs(
    records: Sequence[JobRecord],
    boots: int,
    now: float,
    live: LiveJobs,
    deadlines: Deadlines,
    outcomes: Outcomes,
    model_ids: Collection[str],
) -> None:
    """Put the jobs back in their order; those that cannot run any more get their outcome.

    Args:
        records: Unfinished, in order of acceptance.
        boots: How often a daemon has started on this journal.
        now: Seconds of the journal clock.
        live: Takes the jobs.
        deadlines: Watches them.
        outcomes: Ends those that were cancelled, or whose model is gone.
        model_ids: The models of this node.
    """
    jobs, unreadable = _revive_all(records, boots, now)
    for job in jobs:
        live.add(job)
    for record, job in zip(records, jobs, strict=True):
        if record.cancel_requested:
            await outcomes.end_unrun(job, CANCELLED)
        elif record.seq in unreadable:
            await outcomes.end_unrun(job, Ended(JobEvent.GAVE_UP, "error", UNREADABLE))
        elif job.request.model not in model_ids:
            fault = Fault(
                Code.UNKNOWN_MODEL,
                f"the model {job.request.model!r} is not there any more",
                "Models of this node: " + ", ".join(model_ids),
            )
            await outcomes.end_unrun(job, Ended(JobEvent.GAVE_UP, "error", fault))
    # Last: before the dispatcher runs nobody could take a deadline that passes while we wait for the disk.
    for job in jobs:
        if live.by_seq(job.seq) is job:
            deadlines.watch(job)
