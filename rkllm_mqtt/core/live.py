"""All unfinished jobs in memory, and the counts of everything since the start."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

from msgspec import Struct, field

from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.queue import WaitingJobs
from rkllm_mqtt.core.waiting import Job


class LiveJobs(Struct):
    """Waiting jobs, held ones, and those in the slot; every unfinished job is in exactly one of the three."""

    policy: Policy = field(default_factory=Policy)
    cost_of: Callable[[Job], float] | None = None
    """Estimates the slot time that a job needs, seconds; None: nothing is known."""
    in_slot: list[Job] = field(default_factory=list)
    """The running job first, then the staged one."""
    read_history: Callable[[Job], None] | None = None
    """Called when a held job's turn in its conversation has come: to read its history, then `release` it."""
    _talks: dict[tuple[str, str, str], list[Job]] = field(default_factory=dict)
    """The unfinished jobs of each conversation, in order; only the first may run, the others are held."""
    _talking: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By mailbox: its conversations with unfinished jobs."""
    _held: Counter[str] = field(default_factory=Counter)
    """By client: its jobs behind the first of their conversation."""
    _by_key: dict[tuple[str, str, str], Job] = field(default_factory=dict)
    _by_seq: dict[int, Job] = field(default_factory=dict)

    @property
    def waiting(self) -> WaitingJobs:
        """Return the jobs that wait."""
        return self.policy.waiting

    @property
    def count(self) -> int:
        """Return how many jobs are unfinished."""
        return len(self._by_seq)

    def add(self, job: Job) -> None:
        """Take a new job in; it waits, or is held until its conversation has come to it."""
        self._by_key[job.key] = job
        self._by_seq[job.seq] = job
        if job.request.conversation is None or self.read_history is None:
            self._wait(job)
            return
        talk = self._talks.setdefault(_talk_of(job), [])
        talk.append(job)
        if len(talk) == 1:
            self._talking[_mailbox_of(job)] += 1
            self.read_history(job)
        else:
            self._held[job.client] += 1

    def is_held(self, job: Job) -> bool:
        """Return whether a job waits for its history, or for the end of an earlier turn."""
        return job.seq in self._by_seq and job not in self.waiting and job not in self.in_slot

    def is_unrun(self, job: Job) -> bool:
        """Return whether a job waits or is held: it has no run that would have to end first."""
        return job in self.waiting or self.is_held(job)

    def held_of(self, client: str | None) -> int:
        """Return how many jobs of a client, or of all, are held."""
        return self._held.total() if client is None else self._held[client]

    def release(self, job: Job) -> bool:
        """Let a held job wait with the others, now that it has its history; False when it has ended."""
        if not self.is_held(job):
            return False
        self._wait(job)
        return True

    def take(self, job: Job) -> None:
        """Move a waiting job into the slot, unless the policy did; whoever ends it unrun takes it so, too."""
        if job in self.waiting:
            self.policy.remove(job)
        self.in_slot.append(job)

    def put_back(self, job: Job) -> None:
        """Let a job from the slot wait again, before all of its client that were accepted after it."""
        self.in_slot.remove(job)
        self._wait(job)

    def forget(self, job: Job) -> None:
        """Let a finished job go."""
        self._by_key.pop(job.key, None)
        self._by_seq.pop(job.seq, None)
        if job in self.waiting:
            self.policy.remove(job)
        elif job in self.in_slot:
            self.in_slot.remove(job)
        self._end_turn(job)

    def find(self, target: str, client: str, request_id: str) -> Job | None:
        """Return the unfinished job of an id."""
        return self._by_key.get((target, client, request_id))

    def by_seq(self, seq: int) -> Job | None:
        """Return the unfinished job of a journal number."""
        return self._by_seq.get(seq)

    def of_client(self, target: str, client: str) -> list[Job]:
        """Return the unfinished jobs of a client; takes as long as there are jobs, unless it has none."""
        in_slot = any(job.client == client for job in self.in_slot)
        if not (in_slot or (target, client) in self._talking or self.waiting.of_client(client)):
            return []
        return [job for job in self._by_key.values() if job.key[:2] == (target, client)]

    def all(self) -> list[Job]:
        """Return every unfinished job."""
        return list(self._by_key.values())

    def _end_turn(self, job: Job) -> None:
        """Let the next turn of a conversation come."""
        talk = self._talks.get(_talk_of(job), [])
        if job not in talk:
            return
        was_first = talk[0] is job
        talk.remove(job)
        if not talk:
            del self._talks[_talk_of(job)]
            count_down(self._talking, _mailbox_of(job))
            return
        count_down(self._held, job.client)
        if was_first and self.read_history is not None:
            self.read_history(talk[0])

    def _wait(self, job: Job) -> None:
        if self.cost_of is not None:
            job.cost_s = self.cost_of(job)
        self.policy.add(job)


def count_down(counter: "Counter[Any]", name: Hashable) -> None:
    """Take one away, and the name with the last one: a counter of names that others invent stays small."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def _mailbox_of(job: Job) -> tuple[str, str]:
    target, client, _ = job.key
    return target, client


def _talk_of(job: Job) -> tuple[str, str, str]:
    target, client, _ = job.key
    return target, client, job.request.conversation or ""


class Counters(Struct):
    """Totals since the start of the daemon."""

    accepted: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    rejected: int = 0
    rejected_by_code: Counter[Code] = field(default_factory=Counter)
    dropped: int = 0
    """Messages of clients that were refused too often to be told each time."""
    retried: int = 0
    preempted: int = 0
    """Runs that gave way to an interactive one."""
    tokens_discarded: int = 0
    """Tokens that were made, and made again because their run was interrupted."""
    redelivered: int = 0
    tokens_generated: int = 0
    tokens_prompt: int = 0
    tokens_cached: int = 0
    ignored_retained: int = 0
    invalid_topics: int = 0
    busy_s: float = 0.0
    """Time in which the library computed, as the worker measured it."""

    @property
    def finished(self) -> int:
        """Return how many jobs have ended."""
        return self.succeeded + self.failed + self.cancelled + self.expired
