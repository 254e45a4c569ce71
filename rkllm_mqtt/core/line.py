"""The waiting jobs of one class, in the order of their clients' slot time: Virtual Token Counter, in seconds.

Pure. Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024; here slot time is what is shared.

Rule 1: the client with the least slot time used goes first; of equals the one whose oldest job waits longest.
Rule 2: who comes new, or back after a pause, begins at the least that any of the others has really used: no
    credit is saved by not asking, and nobody stands behind work that was never done.
Rule 3: within a client the order of acceptance holds.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct, field

from rkllm_mqtt.core.waiting import Job

Key = tuple[float, int, str]
"""Slot seconds of a client, `seq` of its oldest waiting job, its name."""


_EXACT = 2**20
"""Parts of a second whose sums are exact: equals stay equals when a charge is taken back, else a staged job
would give way to one that came after it."""
_SUMMED = 64
"""Jobs whose slot time is added up one by one; beyond them the mean is as good."""


def _seq(job: Job) -> int:
    return job.seq


def _exact(seconds: float) -> float:
    return round(seconds * _EXACT) / _EXACT


class ClientQueue(Struct):
    """What one client has waiting in one class; never empty while it is in the line."""

    client: str
    used_s: float
    """Slot time used and charged; never below the line's floor when the client came in."""
    jobs: list[Job] = field(default_factory=list)
    """In order of acceptance."""
    work_s: float = 0.0
    """Estimated slot time of its jobs."""
    models: dict[str, list[Job]] = field(default_factory=dict)
    """The same jobs by their model, each list in order of acceptance."""
    passes: int = 0
    """How often a job with a cached prompt was taken before this client's turn."""
    passed_s: float = 0.0
    """The slot time of those."""

    @property
    def key(self) -> Key:
        """Return its place in the order of the line."""
        return self.used_s, self.jobs[0].seq, self.client

    def before(self, seq: int) -> tuple[int, float]:
        """Return how many of its jobs were accepted before `seq`, and about their slot time."""
        count = bisect_left(self.jobs, seq, key=_seq)
        if count <= _SUMMED:
            return count, sum(job.cost_s for job in self.jobs[:count])
        return count, self.work_s * count / len(self.jobs)

    def within(self, lead_s: float) -> tuple[int, float]:
        """Return how many of its jobs begin before it has used so much more, and about their slot time."""
        seconds = 0.0
        for count, job in enumerate(self.jobs[:_SUMMED]):
            if seconds >= lead_s:
                return count, seconds
            seconds += job.cost_s
        if len(self.jobs) <= _SUMMED or not self.work_s:
            return len(self.jobs), seconds
        seconds = max(seconds, min(self.work_s, lead_s))
        return round(len(self.jobs) * seconds / self.work_s), seconds

    def first_since(self, since: float) -> Job | None:
        """Return its first job that was accepted at this second or later."""
        place = bisect_left(self.jobs, since, key=lambda job: job.queued_at)
        return self.jobs[place] if place < len(self.jobs) else None

    def passes_of(self, job: Job) -> tuple[int, float]:
        """Return how often and for how long one of its jobs was passed."""
        return self.passes + job.passes, self.passed_s + job.passed_s


class Line(Struct):
    """One class."""

    remembered: int = 10_000
    """Clients without a waiting job whose slot time is kept; the least recent are forgotten."""
    jobs: dict[int, Job] = field(default_factory=dict)
    """By `seq`."""
    ages: list[int] = field(default_factory=list)
    """The same, in order of acceptance."""
    queues: dict[str, ClientQueue] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    """One entry for each client, sorted: a list beats a tree far beyond any real number of clients."""
    floor_s: float = 0.0
    """The least slot time that a client had used when the last job began: newcomers begin here."""
    work_s: float = 0.0
    """Estimated slot time of all waiting jobs."""
    orders: dict[str, list[Key]] = field(default_factory=dict)
    """The same for each model: its clients only."""
    _claimed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By client: how many jobs it has in the slot, and what they were charged with, seconds."""
    _idle: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def first(self) -> Job | None:
        """Return the job whose turn it is, prefixes apart."""
        return self.queues[self.order[0][2]].jobs[0] if self.order else None

    @property
    def oldest(self) -> Job | None:
        """Return the job that was accepted first."""
        return self.jobs[self.ages[0]] if self.ages else None

    def heads(self, most: int) -> Iterator[tuple[ClientQueue, Job]]:
        """Yield the first clients of the order, each with its oldest job."""
        for _, _, client in self.order[:most]:
            queue = self.queues[client]
            yield queue, queue.jobs[0]

    def first_of(self, model: str) -> Job | None:
        """Return the job of a model whose turn comes before those of its others."""
        order = self.orders.get(model)
        return self.queues[order[0][2]].models[model][0] if order else None

    def used_s(self, client: str) -> float:
        """Return where a client stands, or would begin."""
        queue = self.queues.get(client)
        return queue.used_s if queue else max(self.floor_s, self._idle.get(client, 0.0))

    def add(self, job: Job) -> None:
        """Put a job into its client's queue, before those that were accepted after it."""
        queue = self.queues.get(job.client)
        if queue is None:
            queue = ClientQueue(job.client, max(self.floor_s, self._idle.pop(job.client, 0.0)))
            self.queues[job.client] = queue
        else:
            self._unlist(queue)
        # What it was passed counts from here on as the difference to its queue's count.
        job.passes -= queue.passes
        job.passed_s -= queue.passed_s
        for jobs in (queue.jobs, queue.models.setdefault(job.request.model, [])):
            if not jobs or jobs[-1].seq < job.seq:
                jobs.append(job)
            else:
                insort(jobs, job, key=_seq)
        queue.work_s += job.cost_s
        self.work_s += job.cost_s
        self._list(queue)
        self.jobs[job.seq] = job
        insort(self.ages, job.seq)

    def remove(self, job: Job) -> None:
        """Take a job out.

        Raises:
            KeyError: It does not wait here.
        """
        del self.jobs[job.seq]
        del self.ages[bisect_left(self.ages, job.seq)]
        queue = self.queues[job.client]
        self._unlist(queue)
        of_model = queue.models[job.request.model]
        for jobs in (queue.jobs, of_model):
            del jobs[bisect_left(jobs, job.seq, key=_seq)]
        if not of_model:
            del queue.models[job.request.model]
        job.passes, job.passed_s = queue.passes_of(job)
        queue.work_s -= job.cost_s
        self.work_s -= job.cost_s
        if queue.jobs:
            self._list(queue)
        else:
            del self.queues[job.client]
            self._remember(job.client, queue.used_s)

    def charge(self, client: str, seconds: float) -> None:
        """Add slot time to a client; negative takes back what was charged too much."""
        seconds = _exact(seconds)
        queue = self.queues.get(client)
        if queue is None:
            self._remember(client, self.used_s(client) + seconds)
            return
        self._unlist(queue)
        queue.used_s += seconds
        self._list(queue)

    def claim(self, client: str, cost_s: float) -> None:
        """Charge a client for a job that goes into the slot what it is estimated to use."""
        jobs, seconds = self._claimed.get(client, (0, 0.0))
        self._claimed[client] = jobs + 1, seconds + _exact(cost_s)
        self.charge(client, cost_s)

    def settle(self, client: str, cost_s: float, used_s: float) -> None:
        """Charge what a job has used instead of the `cost_s` that it was claimed with."""
        jobs, seconds = self._claimed.pop(client, (1, cost_s))
        if jobs > 1:
            self._claimed[client] = jobs - 1, seconds - _exact(cost_s)
        self.charge(client, _exact(used_s) - _exact(cost_s))

    def raise_floor(self) -> None:
        """Let newcomers begin where the least of all clients stands, now that a job begins.

        Only what was used counts, not the estimates of the jobs in the slot: a wrong one would put newcomers
        behind work that was never done. And only when a job begins: who comes while it is staged goes first.
        """
        used = [self.used_s(client) - seconds for client, (_, seconds) in self._claimed.items()]
        used += islice((used_s for used_s, _, client in self.order if client not in self._claimed), 1)
        self.floor_s = max(self.floor_s, min(used, default=0.0))

    def ahead_of(self, job: Job) -> list[ClientQueue]:
        """Return the clients whose turn comes before the client of a waiting job."""
        place = bisect_left(self.order, self.queues[job.client].key)
        return [self.queues[client] for _, _, client in self.order[:place]]

    def _list(self, queue: ClientQueue) -> None:
        key = queue.key
        insort(self.order, key)
        for model in queue.models:
            insort(self.orders.setdefault(model, []), key)

    def _unlist(self, queue: ClientQueue) -> None:
        key = queue.key
        del self.order[bisect_left(self.order, key)]
        for model in queue.models:
            order = self.orders[model]
            del order[bisect_left(order, key)]
            if not order:
                del self.orders[model]  # a name may never come again

    def _remember(self, client: str, used_s: float) -> None:
        self._idle.pop(client, None)
        if used_s > self.floor_s:  # else it would begin at the floor all the same
            self._idle[client] = used_s
            if len(self._idle) > self.remembered:
                self._idle.popitem(last=False)
