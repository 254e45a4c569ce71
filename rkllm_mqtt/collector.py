"""Collects waiting jobs into a batch: those that may share one, within a short window.

Rule 1: an idle slot waits at most the window, counted from when the first job came; a busy one takes the
    next batch when it is full, and whatever there is when it becomes idle.
"""

import asyncio
from collections.abc import Callable
from itertools import islice

from rkllm_mqtt.core import policy
from rkllm_mqtt.core.batches import may_share
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.waiting import Job

_LOOKED_AT = 64


class Collector:
    """Chooses the columns of the next batch."""

    def __init__(self, live: LiveJobs, now: Callable[[], float], wake: Callable[[], None]) -> None:
        """Keep the arguments.

        Args:
            live: The waiting jobs.
            now: The journal clock.
            wake: Called when a window has ended.
        """
        self._live = live
        self._now = now
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self.window_s = 0.01

    def gather(self, first: Job, columns: int, *, busy: bool, ready: Callable[[Job], bool]) -> list[Job]:
        """Return the jobs to run together, in the order of the queue; none as long as others may come.

        Args:
            first: Whose turn it is.
            columns: Most jobs.
            busy: Something runs in the slot.
            ready: Whether a job's prompt is there.
        """
        jobs, now = [first], self._now()
        for job in islice(self._live.waiting, _LOOKED_AT):
            if len(jobs) == columns:
                break
            fits = job is not first and may_share(first.request, job.request)
            if fits and not policy.is_expired(job, now) and ready(job):
                jobs.append(job)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if len(jobs) == columns:
            return jobs
        if busy:
            return []
        left_s = self.window_s - (now - min(job.queued_at for job in jobs))
        if left_s <= 0:
            return jobs
        self._timer = asyncio.get_running_loop().call_later(left_s, self._wake)
        return []
