"""The jobs that wait for the slot, in memory; the journal holds the same on disk."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.job import Priority


@dataclass(slots=True, eq=False)
class Job:
    """A live job: waiting, staged or running. Identity counts, not value."""

    seq: int
    id: str
    request: ChatRequest
    address: Address
    priority: Priority
    accepted_at: float
    """Unix seconds."""
    queued_at: float
    """Seconds of the journal clock; when it was accepted, also across restarts an estimate."""
    deadline: float
    """Seconds of the journal clock."""
    attempt: int = 0
    crashes: int = 0
    cancel_requested: bool = False
    correction: tuple[str, str] | None = None
    """The answer that had not the asked shape, and what is wrong with it: the next run is to correct it."""
    events: int = 0
    """Events sent so far; the next one's `n`."""
    restart_told: bool = False
    """Its sender knows already that the last attempt is void."""
    shown_position: int = 0
    """The place last told to the sender; 0 is none."""

    @property
    def client(self) -> str:
        """Return the client that asked."""
        return self.address.mailbox.client

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes a job unique: target, client, id."""
        return self.address.mailbox.target, self.client, self.id

    def next_event(self) -> int:
        """Return the `n` of the next event, rising from 0."""
        n = self.events
        self.events += 1
        return n


@dataclass(slots=True)
class WaitingJobs:
    """Waiting jobs by class, each class in order of acceptance."""

    _classes: dict[Priority, OrderedDict[int, Job]] = field(
        default_factory=lambda: {priority: OrderedDict() for priority in Priority}
    )
    _by_client: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def __iter__(self) -> Iterator[Job]:
        """Yield the jobs in the order in which they will run, as things stand."""
        for priority in Priority:
            yield from self._classes[priority].values()

    def __contains__(self, job: Job) -> bool:
        return job.seq in self._classes[job.priority]

    def add(self, job: Job) -> None:
        """Put a job behind all of its class."""
        self._classes[job.priority][job.seq] = job
        self._by_client[job.client] = self._by_client.get(job.client, 0) + 1

    def put_back(self, job: Job) -> None:
        """Put a job that was taken out to its place by `seq`: before all that were accepted after it."""
        jobs = self._classes[job.priority]
        earlier = list(takewhile(lambda seq: seq < job.seq, jobs))  # others that came back already: very few
        self.add(job)
        for seq in (job.seq, *reversed(earlier)):
            jobs.move_to_end(seq, last=False)

    def remove(self, job: Job) -> None:
        """Take a job out.

        Raises:
            KeyError: It does not wait.
        """
        del self._classes[job.priority][job.seq]
        left = self._by_client[job.client] - 1
        if left:
            self._by_client[job.client] = left
        else:
            del self._by_client[job.client]

    def first(self, priority: Priority) -> Job | None:
        """Return the job of a class that has waited longest, or None."""
        return next(iter(self._classes[priority].values()), None)

    def count(self, priority: Priority) -> int:
        """Return how many jobs of a class wait."""
        return len(self._classes[priority])

    def of_client(self, client: str) -> int:
        """Return how many jobs of a client wait."""
        return self._by_client.get(client, 0)

    def place_of(self, job: Job) -> int:
        """Return the place, from 1, of a job that waits; takes as long as its class."""
        higher = sum(len(jobs) for other, jobs in self._classes.items() if other < job.priority)
        return higher + 1 + list(self._classes[job.priority]).index(job.seq)

    def place_of_newest(self, priority: Priority) -> int:
        """Return the place, from 1, of the last job of a class."""
        return sum(len(jobs) for other, jobs in self._classes.items() if other <= priority)
