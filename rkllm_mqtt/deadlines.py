"""Call when the deadline of a job passes; finished jobs are forgotten, however far their deadline is."""

import asyncio
import heapq
from collections.abc import Callable

from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.waiting import Job

_SLACK = 1_000
"""Stale entries that are kept before the heap is built anew from the live jobs."""


class Deadlines:
    """One timer for all deadlines."""

    def __init__(self, live: LiveJobs, now: Callable[[], float], on_passed: Callable[[Job], None]) -> None:
        """Keep the arguments.

        Args:
            live: The unfinished jobs.
            now: The journal clock, seconds.
            on_passed: Takes an unfinished job whose deadline has passed, once.
        """
        self._live = live
        self._now = now
        self._on_passed = on_passed
        self._heap: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, job: Job) -> None:
        """Watch the deadline of a new job."""
        if len(self._heap) > 2 * self._live.count + _SLACK:
            self._heap = [(other.deadline, other.seq) for other in self._live.all() if other is not job]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (job.deadline, job.seq))
        if self._heap[0][1] == job.seq:
            self._arm()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.close()
        if self._heap:
            # A day at most: a longer timer would overflow the loop's clock for an absurd deadline.
            delay = min(86_400.0, max(0.0, self._heap[0][0] - self._now()))
            self._timer = asyncio.get_running_loop().call_later(delay, self._pass)

    def _pass(self) -> None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            job = self._live.by_seq(heapq.heappop(self._heap)[1])
            if job is not None:
                self._on_passed(job)
        self._arm()
