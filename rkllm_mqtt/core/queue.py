"""All that waits for the slot: a line for each class, and how many jobs each client has."""

from bisect import insort
from collections.abc import Iterator
from heapq import heappop, heappush

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.line import Key, Line
from rkllm_mqtt.core.waiting import Job


class WaitingJobs:
    """Waiting jobs by class."""

    def __init__(self, remembered: int = 10_000) -> None:
        """Start without any.

        Args:
            remembered: Clients without a waiting job whose slot time is kept, in each class.
        """
        self.lines = {priority: Line(remembered) for priority in Priority}
        self._by_client: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Job]:
        """Yield the jobs as they would run if each took what it was estimated to and no reserve was unmet."""
        for priority in Priority:
            yield from LineReplay(self.lines[priority])

    def __contains__(self, job: Job) -> bool:
        return job.seq in self.lines[job.priority].jobs

    def add(self, job: Job) -> None:
        """Put a job into the line of its class, before all of its client that were accepted after it."""
        self.lines[job.priority].add(job)
        self._by_client[job.client] = self._by_client.get(job.client, 0) + 1
        self._count += 1

    def remove(self, job: Job) -> None:
        """Take a job out.

        Raises:
            KeyError: It does not wait.
        """
        self.lines[job.priority].remove(job)
        self._count -= 1
        left = self._by_client[job.client] - 1
        if left:
            self._by_client[job.client] = left
        else:
            del self._by_client[job.client]

    def first(self, priority: Priority) -> Job | None:
        """Return the job of a class whose turn it is, or None."""
        return self.lines[priority].first

    def count(self, priority: Priority) -> int:
        """Return how many jobs of a class wait."""
        return len(self.lines[priority])

    def of_client(self, client: str) -> int:
        """Return how many jobs of a client wait."""
        return self._by_client.get(client, 0)

    @property
    def waits(self) -> tuple[bool, ...]:
        """Return which classes have a job waiting, by `Priority`."""
        return tuple(map(bool, map(len, self.lines.values())))

    @property
    def oldest(self) -> Job | None:
        """Return the job that was accepted first."""
        oldest = [line.oldest for line in self.lines.values()]
        return min((job for job in oldest if job), key=lambda job: job.seq, default=None)

    @property
    def work_s(self) -> float:
        """Return the slot time that all of them were estimated to need."""
        return sum(line.work_s for line in self.lines.values())


class LineReplay:
    """Plays what a line would give, without touching it; costs grow with what is asked, not with the line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._next = 0
        """Clients of the line's order that had a turn."""
        self._again: list[tuple[Key, int]] = []
        """Clients that had one and have more, each with the place of its next job."""
        self._has_more = False
        self._changed: dict[str, list[Job]] = {}
        """The jobs of clients that more were added to."""

    def __iter__(self) -> Iterator[Job]:
        while (key := self.peek()) is not None:
            job = self.take()
            self.charge(key, job.cost_s)
            yield job

    def add(self, job: Job) -> None:
        """Let a job wait that is not in the line; before anything is taken."""
        if job.client not in self._line.queues and job.client not in self._changed:
            heappush(self._again, ((self._line.used_s(job.client), job.seq, job.client), 0))
        jobs = list(self._jobs(job.client))
        insort(jobs, job, key=lambda one: one.seq)
        self._changed[job.client] = jobs

    def peek(self) -> Key | None:
        """Return the key of the client whose turn it is; None when nothing is left."""
        new = self._line.order[self._next] if self._next < len(self._line.order) else None
        again = self._again[0][0] if self._again else None
        if new is None or again is None:
            return new or again
        return min(new, again)

    def take(self) -> Job:
        """Return the job whose turn it is; `charge` must follow before the client comes again."""
        key = self.peek()
        assert key is not None
        if self._again and self._again[0][0] == key:
            self._place = heappop(self._again)[1]
        else:
            self._next += 1
            self._place = 0
        jobs = self._jobs(key[2])
        self._has_more = len(jobs) > self._place + 1
        return jobs[self._place]

    @property
    def waits(self) -> bool:
        """Return whether something waits, the job of the last `take` not counted."""
        return self._has_more or self.peek() is not None

    def charge(self, key: Key, seconds: float, *, keep: bool = False) -> None:
        """Charge the client of the last `take`; with `keep` the job is not done and waits again."""
        self._has_more = False
        place = self._place + (not keep)
        jobs = self._jobs(key[2])
        if place < len(jobs):
            heappush(self._again, ((key[0] + seconds, jobs[place].seq, key[2]), place))

    def _jobs(self, client: str) -> list[Job]:
        changed = self._changed.get(client)
        if changed is not None:
            return changed
        queue = self._line.queues.get(client)
        return queue.jobs if queue else []
