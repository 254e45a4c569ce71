"""Tell when a waiting job will begin, by playing the policy forward as if nobody else came.

Pure. The first 64 places are played job by job; what is behind them is told by the slot time that will go
before it, for nobody can say which of ten thousand places is whose.
"""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, field

from rkllm_mqtt.core.holds import Holders, may_begin
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.line import Line
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.queue import LineReplay
from rkllm_mqtt.core.reserves import Reserves, choose_class
from rkllm_mqtt.core.waiting import Job

PLAYED = 64
"""Places that are played one by one."""
_LOOKED_AT = 64
"""Clients of a class whose queues are weighed for the places behind."""

_MOMENT_S = 1e-6

CostOf = Callable[[Job], float]


class Outlook(Struct, frozen=True):
    """Where a waiting job stands."""

    place: int
    """From 1."""
    begins_in_s: float


class Occupied(Struct, frozen=True):
    """What is in the slot now."""

    left_s: float = 0.0
    """Until the slot is free, when nobody interrupts."""
    staged: tuple[Job, ...] = ()
    """Runs next, whatever waits."""
    preempted: Job | None = None
    """The running job, when it is about to give way: it waits again, its rest being `left_s`."""
    give_way_s: float = 0.0
    """How long that takes."""
    revoked: tuple[Job, ...] = ()
    """Staged too, but about to give way: they wait again."""
    held_s: float = 0.0
    """So long nothing lower than interactive begins, unless that comes before."""
    holders: Holders = field(default_factory=dict)
    """For whom."""


class Forecast(Struct):
    """The policy as it stands, and what is in the slot."""

    policy: Policy
    cost_of: CostOf
    """Estimates the slot time that a job still needs, seconds."""
    slice_s: Callable[[Job], float]
    """Estimates how long a job of a class that is owed runs before it gives way to a higher one."""

    def play(self, now: float, slot: Occupied, added: Job | None = None) -> Iterator[tuple[Job, float]]:
        """Yield the jobs in the order in which they will begin, each with the seconds until then.

        Args:
            now: Seconds of the clock of the policy.
            slot: What is in it.
            added: A job that does not wait yet: behind all of its client.
        """
        game = _Game(self, now, slot, added)
        told: set[int] = set()
        for job in slot.staged:
            told.add(job.seq)
            yield job, game.clock_s
            game.spend(job.priority, self.cost_of(job))
        while (priority := game.next_class()) is not None:
            job, begins_s = game.take(priority)
            if job.seq not in told:
                told.add(job.seq)
                yield job, begins_s

    def of(self, job: Job, now: float, slot: Occupied, added: Job | None = None) -> Outlook:
        """Return where a job stands that waits, is staged or is `added`."""
        return self.of_all([job], now, slot, added)[0]

    def of_all(
        self, jobs: Sequence[Job], now: float, slot: Occupied, added: Job | None = None
    ) -> list[Outlook]:
        """Return where each of some jobs stands, all played at once."""
        scale = self._scale()
        told = {job: self._behind(job, slot, scale) for job in jobs}
        sought = {job for job, rough in told.items() if rough.place <= PLAYED}
        if sought:
            for place, (job, begins_s) in enumerate(self.play(now, slot, added), 1):
                if job in told:
                    told[job] = Outlook(place, begins_s)
                    sought.discard(job)
                if not sought or place > 2 * PLAYED:
                    break
        return [told[job] for job in jobs]

    def all_done_s(self, slot: Occupied) -> float:
        """Return the slot time until everything that waits is done."""
        staged_s = sum(map(self.cost_of, (*slot.staged, *slot.revoked)))
        return max(slot.left_s + staged_s, slot.held_s) + self._scale() * self.policy.waiting.work_s

    def _behind(self, job: Job, slot: Occupied, scale: float) -> Outlook:
        """Return about where a job stands, by the slot time that goes before it."""
        lines = self.policy.waiting.lines
        staged = [*slot.staged, *(one for one in slot.revoked if one.priority <= job.priority)]
        jobs, seconds = float(len(staged)), 0.0
        for priority in Priority:
            if priority < job.priority:
                jobs += len(lines[priority])
                seconds += lines[priority].work_s
        more_jobs, more_s = _before(lines[job.priority], job)
        first_s = slot.left_s + sum(map(self.cost_of, staged))
        if not may_begin(job, slot.holders):
            first_s = max(first_s, slot.held_s)
        return Outlook(int(jobs + more_jobs) + 1, first_s + scale * (seconds + more_s))

    def _scale(self) -> float:
        """Return by how much the estimates at acceptance are wrong by what is known now."""
        then_s = now_s = 0.0
        for line in self.policy.waiting.lines.values():
            for _, job in line.heads(8):
                then_s += job.cost_s
                now_s += self.cost_of(job)
        return now_s / then_s if then_s > 0 else 1.0


def _before(line: Line, job: Job) -> tuple[float, float]:
    """Return about how many jobs of the same class run before a job, and their slot time."""
    queue = line.queues.get(job.client)
    own_jobs, own_s = queue.before(job.seq) if queue else (0, 0.0)
    turn_s = line.used_s(job.client) + own_s
    weighed, jobs, seconds = 0, 0.0, 0.0
    for used_s, seq, client in line.order[:: max(1, len(line.order) // _LOOKED_AT)]:
        if client == job.client:
            continue
        weighed += 1
        lead_s = turn_s - used_s
        if lead_s > 0 or (lead_s == 0 and seq < job.seq):
            more_jobs, more_s = line.queues[client].within(max(lead_s, _MOMENT_S))
            jobs += more_jobs
            seconds += more_s
    if weighed:
        others = (len(line.order) - (queue is not None)) / weighed
        jobs, seconds = jobs * others, seconds * others
    return own_jobs + jobs, own_s + seconds


class _Game:
    """The state of one play."""

    def __init__(self, forecast: Forecast, now: float, slot: Occupied, added: Job | None) -> None:
        policy = forecast.policy
        self._forecast = forecast
        self._start = now
        self.clock_s = slot.give_way_s if slot.preempted else slot.left_s
        self._lines = {priority: LineReplay(line) for priority, line in policy.waiting.lines.items()}
        self._reserves = Reserves(policy.rules.window_s, policy.rules.shares, list(policy.reserves.debts_s))
        self._left: dict[int, float] = {}
        self._held_s, self._holders = slot.held_s, slot.holders
        self._tenancy = policy.tenancy
        self._moved_in = {policy.tenancy.model}
        """Models whose load is counted: jobs of one are run together, as far as others can wait."""
        for revoked in slot.revoked:
            self._lines[revoked.priority].add(revoked)
        if slot.preempted is not None:
            self._left[slot.preempted.seq] = slot.left_s
            self._lines[slot.preempted.priority].add(slot.preempted)
        if added is not None:
            self._lines[added.priority].add(added)
        running = policy.running.priority if policy.running else None
        self._reserves.advance(now, self._waits(), running)
        self._reserves.advance(now + self.clock_s, self._waits(), None)

    def next_class(self) -> Priority | None:
        """Return the class whose turn it is."""
        return choose_class(self._waits(), self._reserves.owed())

    def take(self, priority: Priority) -> tuple[Job, float]:
        """Play the stay of the job whose turn it is; return it and when it began."""
        line = self._lines[priority]
        owed = self._reserves.owes(priority)
        key = line.peek()
        job = line.take()
        assert key is not None
        if not may_begin(job, self._holders):
            self.clock_s = max(self.clock_s, self._held_s)
        self._held_s, self._holders = 0.0, {}
        self._load(job)
        began_s = self.clock_s
        left_s = self._left.pop(job.seq, None)
        cost_s = self._forecast.cost_of(job) if left_s is None else left_s
        spent_s = cost_s
        if owed and priority is not Priority.INTERACTIVE and self._lines[Priority.INTERACTIVE].peek():
            spent_s = min(cost_s, self._forecast.slice_s(job))
        unfinished = spent_s < cost_s
        if unfinished:
            self._left[job.seq] = cost_s - spent_s
        self.spend(priority, spent_s)
        line.charge(key, spent_s, keep=unfinished)
        return job, began_s

    def _load(self, job: Job) -> None:
        if self._tenancy.model is not None and job.request.model not in self._moved_in:
            self._moved_in.add(job.request.model)
            self.clock_s += self._tenancy.loads_s.get(job.request.model, 0.0)

    def spend(self, priority: Priority, seconds: float) -> None:
        """Let the slot be used by a class."""
        self._reserves.advance(self._start + self.clock_s, self._waits(), priority)
        self.clock_s += seconds
        self._reserves.advance(self._start + self.clock_s, self._waits(), priority)

    def _waits(self) -> tuple[bool, ...]:
        return tuple(line.waits for line in self._lines.values())
