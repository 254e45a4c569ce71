"""Decide what the slot runs next, and what must give way.

Pure: jobs and a time go in, a decision comes out. `dispatcher` acts on it, the journal makes it durable.

Rule 1: every reason to choose, preempt or expire a job is in this file and what it imports; what follows a
    run is in `verdict`.
Rule 2: the highest class first, but a class that is owed slot time goes before it (`Reserves`).
Rule 3: within a class the client that has used the least slot time (`Line`); a cached prompt may pass a job
    at most twice and for two seconds in total; who waits very long is taken every eighth time.
Rule 4: nothing here looks at more than 64 jobs.
Rule 5: a job whose model is not in the slot may be passed by others for a bounded time (`Tenancy`).
Rule 6: while the slot is held for a question nothing lower begins, for a bounded part of the time (`Holds`).
Rule 7: making a prefix ready is work for a question to come: a question that is there goes before it.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct, field

from rkllm_mqtt.core.holds import Holders, Holds, may_begin
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.line import Line
from rkllm_mqtt.core.queue import WaitingJobs
from rkllm_mqtt.core.reserves import Reserves, choose_class
from rkllm_mqtt.core.tenancy import Tenancy, Terms
from rkllm_mqtt.core.waiting import Job

Note = Callable[..., None]

Saving = Callable[[Job], float]
"""Slot time that a job saves because of what is in the KV cache now, seconds."""


class Rules(Struct, frozen=True):
    """The numbers of the policy."""

    window_s: float = 600.0
    shares: Sequence[float] = (0.0, 0.15, 0.05)
    """What each class keeps of the slot time of any window in which it waits, by `Priority`."""
    protected_tokens: int = 16
    """Tokens that a job of a class that is owed makes before it may be preempted."""
    passes: int = 2
    """How often a job may be passed for a cached prompt; 0: never."""
    passed_s: float = 2.0
    least_saving_s: float = 0.1
    """A cached prompt that saves less is no reason to change an order."""
    looked_at: int = 16
    """Clients whose prompts are compared with the KV cache."""
    aged_s: float = 600.0
    """A class whose oldest job waits longer takes it..."""
    aged_turn: int = 8
    """... at every so many-th choice, whatever its client has used."""
    terms: Terms = field(default_factory=Terms)
    """When another model is loaded."""
    hold_share: float = 0.2
    """Part of any window for which holds may keep others waiting."""


_DEFAULTS = Rules()


class Policy:
    """The order of the slot, and the accounts that it rests on."""

    def __init__(
        self, rules: Rules = _DEFAULTS, waiting: WaitingJobs | None = None, *, note: Note | None = None
    ) -> None:
        """Start with nothing running and no account used.

        Args:
            rules: What decides.
            waiting: The jobs that wait; None: there are none yet.
            note: Takes every event and decision, so that a trace of them can be played again.
        """
        self.rules = rules
        self.waiting = WaitingJobs() if waiting is None else waiting
        self.reserves = Reserves(rules.window_s, rules.shares)
        self.tenancy = Tenancy(rules.terms)
        self.holds = Holds(rules.hold_share, rules.window_s)
        self.running: Job | None = None
        """The job that computes now."""
        self.note = note
        self._choices = [0] * len(Priority)
        """Choices of each class since it last took its oldest job."""
        self._numbered = 0

    # what happens

    def add(self, job: Job) -> None:
        """A job waits: a new one, or one that was in the slot."""
        if self.note:
            number, model = self._number(job), job.request.model
            self.note("add", number, job.seq, job.priority, job.client, job.cost_s, job.queued_at, model)
            if job.request.prefix is not None:
                self.note("prefix", number)
        self.tenancy.hear(job, job.queued_at)
        self.waiting.add(job)

    def remove(self, job: Job) -> None:
        """A job waits no more, whatever the reason.

        Raises:
            KeyError: It did not wait.
        """
        if self.note:
            self.note("remove", self._number(job))
        self.waiting.remove(job)

    def claim(self, job: Job, cost_s: float, now: float) -> None:
        """Take a waiting job into the slot and charge its client what the stay is estimated to cost."""
        if self.note:
            self.note("claim", self._number(job), cost_s, now)
        line = self.waiting.lines[job.priority]
        self.tenancy.hear(job, now)
        if self.tenancy.contended_at is not None:
            self.tenancy.passed_jobs += 1  # who is passed is passed for a load, not for a prompt
        elif job is not self._aged(job.priority, now):
            for queue in line.ahead_of(job):
                queue.passes += 1
                queue.passed_s += cost_s
        self._choices[job.priority] = 0 if job is line.oldest else self._choices[job.priority] + 1
        self.waiting.remove(job)
        self._end_hold(job)
        self.advance(now)
        job.charged_s = cost_s
        line.claim(job.client, cost_s)

    def enter(self, job: Job, cost_s: float, now: float) -> None:
        """Let a job into an idle slot that never waited."""
        if self.note:
            self.note("enter", self._number(job), job.priority, job.client, cost_s, now, job.request.model)
        self.tenancy.hear(job, now)
        self._end_hold(job)
        self.advance(now)
        job.charged_s = cost_s
        self.waiting.lines[job.priority].claim(job.client, cost_s)

    def begin(self, job: Job, now: float) -> None:
        """A job in the slot begins to compute."""
        if self.note:
            self.note("begin", self._number(job), now)
        self.running = job
        self.waiting.lines[job.priority].raise_floor()
        self.advance(now)
        job.protected = self.reserves.owes(job.priority)

    def settle(self, job: Job, used_s: float, now: float) -> None:
        """A stay in the slot is over: its client pays what it used, not what was estimated."""
        if self.note:
            self.note("settle", self._number(job), used_s, now)
        if self.running is job:
            self.running = None
        self.holds.withdraw(job.number)
        self.advance(now)
        self.tenancy.hear(job, now)
        self.waiting.lines[job.priority].settle(job.client, job.charged_s, used_s + job.load_s)
        job.charged_s, job.load_s, job.protected = 0.0, 0.0, False

    def move_in(self, model: str, brought_by: Job | None = None) -> None:
        """A model takes the slot, because of a waiting job or of somebody's wish."""
        if self.note:
            self.note("move_in", model, self._number(brought_by))
        self.tenancy.move_in(model)
        if brought_by is not None:
            brought_by.load_s += self.tenancy.loads_s.get(model, 0.0)

    def learn_load(self, model: str, seconds: float) -> None:
        """Take what the next load of a model will take."""
        if self.note:
            self.note("load", model, seconds)
        self.tenancy.loads_s[model] = seconds

    def pin(self, model: str | None, silence_s: float) -> None:
        """Let this model, or none, be the pinned one: it stays until its voice was silent for so long."""
        if self.note:
            self.note("pin", model, silence_s)
        self.tenancy.pinned, self.tenancy.silence_s = model, silence_s

    def promise_hold(self, job: Job) -> None:
        """A job in the slot may be followed by a hold for its client: stage nothing lower behind it."""
        number = self._number(job)
        if self.note:
            self.note("promise", number, job.queued_at)
        self.holds.promise(job.number, job.client, job.queued_at)

    def hold(self, client: str, wished_s: float, now: float, since: float) -> float:
        """Hold the slot for a client, from now on; return for how long at most, seconds: 0 is not at all.

        Args:
            client: Who is about to ask.
            wished_s: Longest hold.
            now: Seconds.
            since: What the client has sent since then may be the question.
        """
        if self.note:
            self.note("hold", client, wished_s, now, since)
        self.advance(now)
        granted_s = self.holds.grant_s(client, wished_s, now)
        self.holds.hold(client, granted_s, now, since)
        return granted_s

    def charge(self, client: str, priority: Priority, seconds: float) -> None:
        """Charge a client for slot time that was used for it without a job of its own."""
        if self.note:
            self.note("charge", client, priority, seconds)
        self.waiting.lines[priority].charge(client, seconds)

    def advance(self, now: float) -> None:
        """Account for the time that has passed, and take note of what waits and runs from now on."""
        self.reserves.advance(now, self.waiting.waits, self.running.priority if self.running else None)
        held = self.holds.advance(now, waits=len(self.waiting) > 0, busy=self.running is not None)
        if held is not None:  # who keeps others waiting pays for it
            self.waiting.lines[Priority.INTERACTIVE].charge(*held)

    # what to do

    def choose(self, now: float, saving: Saving | None = None) -> Job | None:
        """Return the job to run next; None when nothing waits. Takes nothing out.

        Args:
            now: Seconds, of the clock that all calls use.
            saving: Knows the KV cache; None when nothing of use is in it.
        """
        if self.note is None:
            return self._choose(now, saving)
        seen: dict[int | None, float] = {}
        chosen = self._choose(now, self._watched(saving, seen))
        self.note("choose", self._number(chosen), seen, now)
        return chosen

    def _choose(self, now: float, saving: Saving | None) -> Job | None:
        self.advance(now)
        holders = self._holders(now)
        if holders and not self.waiting.count(Priority.INTERACTIVE):
            return self._asked_by(holders)
        chosen = self._choose_unheld(now, saving)
        return chosen if chosen is None or may_begin(chosen, holders) else None

    def _choose_unheld(self, now: float, saving: Saving | None) -> Job | None:
        best, tenancy = self._best(now, saving), self.tenancy
        tenancy.opens_at = None
        if best is None or tenancy.model is None or tenancy.has(best):
            return best
        lowest = tenancy.passes(best, now)
        if lowest is not None:
            classes = (self.waiting.lines[priority] for priority in Priority if priority <= lowest)
            passing = next(filter(None, (line.first_of(tenancy.model) for line in classes)), None)
            if passing is not None:
                return passing
        return best if tenancy.opens_at is None else None

    def _holders(self, now: float) -> Holders:
        """Return the clients for which lower work of others has to wait; none when a class is owed."""
        holders = self.holds.holders(now)
        owed = zip(self.waiting.waits, self.reserves.owed(), strict=True)
        if not holders or not any(waits and owes for waits, owes in owed):
            return holders
        self.holds.end()
        return {}

    def _asked_by(self, holders: Holders) -> Job | None:
        """Return the first job that may be the question of a client for which the slot is held."""
        for client, since in holders.items():
            queue = self.waiting.lines[Priority.NORMAL].queues.get(client)
            job = queue.first_since(since) if queue is not None else None
            if job is not None and (self.tenancy.model is None or self.tenancy.has(job)):
                return job
        return None

    def _end_hold(self, job: Job) -> None:
        """A job comes into the slot: a hold for it has served, and one for another must not go on."""
        if job.priority is Priority.INTERACTIVE or job.client == self.holds.holder:
            self.holds.end()

    def _best(self, now: float, saving: Saving | None) -> Job | None:
        """Return the job whose turn it is, whatever its model."""
        priority = choose_class(self.waiting.waits, self.reserves.owed())
        if priority is None:
            return None
        aged = self._aged(priority, now)
        if aged is not None:
            return aged
        line = self.waiting.lines[priority]
        return line.first if saving is None or not self.rules.passes else self._nearest(line, saving)

    def should_replace(self, staged: Job, now: float, saving: Saving | None = None) -> bool:
        """Return whether a staged job that has not begun must give way: another would be chosen by now."""
        line, cost_s = self.waiting.lines[staged.priority], staged.charged_s
        seen: dict[int | None, float] = {}
        self.advance(now)
        line.charge(staged.client, -cost_s)
        self.waiting.add(staged)
        best = self._choose(now, saving if self.note is None else self._watched(saving, seen))
        self.waiting.remove(staged)
        line.charge(staged.client, cost_s)
        self.advance(now)
        if self.note:
            self.note("replace", self._number(staged), best is not staged, seen, now)
        return best is not staged

    def should_preempt(self, tokens: int, now: float, *, staged: bool = False) -> bool:
        """Return whether the running job must give way to an interactive one.

        Args:
            tokens: What it has made since it began.
            now: Seconds.
            staged: An interactive job is staged behind it.
        """
        job = self.running
        if job is None or is_question(job):
            return False
        self.advance(now)
        preempt = (staged or self._is_wanted(job)) and not self.is_protected(job, tokens)
        if self.note:
            self.note("preempt", tokens, staged, preempt, now)
        return preempt

    def _is_wanted(self, job: Job) -> bool:
        """Return whether an interactive job waits for which the running one has to give way."""
        return any(
            goes_before(other, job) for other in self.waiting.lines[Priority.INTERACTIVE].jobs.values()
        )

    def is_protected(self, job: Job, tokens: int) -> bool:
        """Return whether a running job may not be preempted yet: its class waits for its share."""
        if job.request.prefix is not None:
            return False
        few = tokens < self.rules.protected_tokens
        return job.protected and (few or self.reserves.is_at_risk(job.priority))

    def _number(self, job: Job | None) -> int | None:
        """Return how a trace calls a job: one that never waited has no `seq` yet."""
        if job is not None and not job.number:
            self._numbered += 1
            job.number = self._numbered
        return job.number if job else None

    def _watched(self, saving: Saving | None, seen: dict[int | None, float]) -> Saving | None:
        """Return the same knowledge of the KV cache that notes what it was asked."""
        if saving is None:
            return None
        ask = saving

        def watched(job: Job) -> float:
            seconds = seen[self._number(job)] = ask(job)
            return seconds

        return watched

    def _aged(self, priority: Priority, now: float) -> Job | None:
        """Return the oldest job of a class when it has waited so long that its turn has come."""
        if self._choices[priority] + 1 < self.rules.aged_turn:
            return None
        oldest = self.waiting.lines[priority].oldest
        return oldest if oldest is not None and now - oldest.queued_at > self.rules.aged_s else None

    def _nearest(self, line: Line, saving: Saving) -> Job | None:
        """Return the first job, or one close behind it that saves more and may pass those before it."""
        best: Job | None = None
        most = 0.0
        left_s = self.rules.passed_s
        for queue, job in line.heads(self.rules.looked_at):
            if best is None or (job.cost_s <= left_s and saving(job) > most):
                best, most = job, saving(job) + self.rules.least_saving_s
            passes, passed_s = queue.passes_of(job)
            left_s = min(left_s, self.rules.passed_s - passed_s) if passes < self.rules.passes else 0.0
            if left_s <= 0:
                break
        return best


def is_question(job: Job) -> bool:
    """Return whether a job is interactive and asks for an answer: nothing goes before it."""
    return job.priority is Priority.INTERACTIVE and job.request.prefix is None


def goes_before(job: Job, running: Job) -> bool:
    """Return whether a running job has to give way to another one."""
    return is_question(job) or (job.priority is Priority.INTERACTIVE < running.priority)


def is_expired(job: Job, now: float) -> bool:
    """Return whether the deadline of a job has passed; `now` in seconds of the journal clock."""
    return now >= job.deadline
