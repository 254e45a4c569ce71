"""Tell when jobs begin, those in the queue and those that would come now; changes nothing."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec.structs import replace

from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.estimates import Estimates
from rkllm_mqtt.core.forecast import Forecast, Occupied, Outlook
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.turn import Turn

_LAST = 2**62
"""Behind every `seq` of the journal."""
_SOON_S = 5.0
"""A deadline this close is looked at also when hardly anything waits."""


class Outlooks:
    """Joins the forecast with what is in the slot."""

    def __init__(self, policy: Policy, slot: Slot, journal: Journal, estimates: Estimates) -> None:
        self._policy = policy
        self._slot = slot
        self._journal = journal
        self._estimates = estimates
        self._paces = estimates.paces
        self._turns: Sequence[Turn] = ()
        self.paused = False
        """Nothing begins before somebody resumes: places are known then, times are not."""
        self._forecast = Forecast(policy, estimates.slot_s, self._slice_s)

    def watch(self, turns: Sequence[Turn]) -> None:
        """Look at these jobs in the slot from now on, the running one first."""
        self._turns = turns

    def outlook(self, job: Job) -> tuple[int, float | None]:
        """Return the place of a job, 0 when it runs, and the seconds until it begins; None: nobody knows."""
        return self.outlooks([job])[0]

    def outlooks(self, jobs: Sequence[Job]) -> list[tuple[int, float | None]]:
        """Return the same for each of some jobs; the queue is played forward once for all of them."""
        staged = {turn.job for turn in self._turns if turn.staged}
        queued = [job for job in jobs if job in staged or job in self._policy.waiting]
        found = self._forecast.of_all(queued, self._journal.now(), self._occupied()) if queued else []
        told = {job: self._told(job, outlook) for job, outlook in zip(queued, found, strict=True)}
        return [told.get(job, (0, None)) for job in jobs]

    def first_token_s(self, turn: Turn) -> float | None:
        """Return the seconds from the beginning of a run to its first token; None: nobody knows."""
        return self._first_token_s(turn) if self._estimates.is_known(turn.job.request.model) else None

    def first(self, most: int) -> Iterator[tuple[Job, int, float | None]]:
        """Yield the jobs that begin next, each with its place and the seconds until then."""
        jobs = self._forecast.play(self._journal.now(), self._occupied())
        for place, (job, begins_s) in enumerate(islice(jobs, most), 1):
            yield job, *self._told(job, Outlook(place, begins_s))

    def outlook_of_new(self, job: Job) -> Outlook:
        """Return the place that a job would have that is not in the queue."""
        last = replace(job, seq=_LAST)
        return self._forecast.of(last, self._journal.now(), self._occupied(job.priority), added=last)

    def too_late(self, job: Job) -> Fault | None:
        """Return why a new job cannot have its first token in time if all goes well; None when it may."""
        now = self._journal.now()
        left_s = job.deadline - now
        held_s = self._policy.holds.left_s(now)  # it may end at any moment
        is_idle = not (self._turns or self._policy.waiting) and self._slot.loading_since is None
        all_done_s = held_s if is_idle else self._forecast.all_done_s(self._occupied())
        # Nearly all deadlines are far behind all that waits.
        if left_s > all_done_s + _SOON_S or left_s <= 0:
            return None
        begins_s = max(0.0, self.outlook_of_new(job).begins_in_s - held_s)
        hope_s = self._estimates.hope_s(begins_s, job)
        if hope_s is None or hope_s <= left_s:
            return None
        eta_s = round(begins_s, 1)
        return Fault(
            Code.EXPIRED,
            f"its answer would begin in about {eta_s:g} s, and its deadline is in {left_s:.1f} s",
            "Raise `ttl_s` or its MQTT message expiry, its priority, or ask when less waits.",
            eta_s=eta_s,
        )

    def frees_in_s(self, client: str | None) -> float | None:
        """Return the seconds until a waiting job of a client, or of anybody, leaves the queue."""
        if client is None:
            return next((begins_s for _, _, begins_s in self.first(1)), None)
        queues = (line.queues.get(client) for line in self._policy.waiting.lines.values())
        told = [self.outlook(queue.jobs[0])[1] for queue in queues if queue]
        return min((seconds for seconds in told if seconds is not None), default=None)

    def all_done_s(self) -> float | None:
        """Return the seconds until all that waits is done; None: nobody knows."""
        if self.paused or not self._estimates.is_known(self._slot.wanted):
            return None
        return round(self._forecast.all_done_s(self._occupied()), 1)

    def _told(self, job: Job, outlook: Outlook) -> tuple[int, float | None]:
        known = not self.paused and self._estimates.is_known(job.request.model)
        return outlook.place, round(outlook.begins_in_s, 1) if known else None

    def _occupied(self, newcomer: Priority | None = None) -> Occupied:
        """Return what is in the slot; `newcomer`: the class of a job that comes now."""
        left_s = self._load_left_s()
        staged: list[Job] = []
        revoked: list[Job] = []
        waiting = self._policy.waiting
        highest = next((priority for priority in Priority if waiting.count(priority)), max(Priority))
        highest = highest if newcomer is None else min(highest, newcomer)
        gives_way: Turn | None = None
        for turn in self._turns:
            if turn.staged:
                # The dispatcher takes it back within its next look.
                gives = highest < turn.job.priority and not self._policy.reserves.owes(turn.job.priority)
                (revoked if gives else staged).append(turn.job)
            elif turn.computing:
                left_s = max(left_s, self._left_s(turn))  # several are columns of one batch
                if turn.run.giving_way or (highest is Priority.INTERACTIVE and self._may_preempt(turn)):
                    gives_way = turn
        now = self._journal.now()
        held_s, holders = self._policy.holds.left_s(now), self._policy.holds.holders(now)
        slot = Occupied(left_s, tuple(staged), revoked=tuple(revoked), held_s=held_s, holders=holders)
        if gives_way is None:
            return slot
        give_way_s = self._paces[gives_way.job.request.model].rates.step_s(0)
        return replace(slot, preempted=gives_way.job, give_way_s=give_way_s)

    def _load_left_s(self) -> float:
        """Return how long the load in progress will still take."""
        if self._slot.loading_since is None:
            return 0.0
        passed_s = asyncio.get_running_loop().time() - self._slot.loading_since
        return max(0.0, self._slot.loads.seconds(self._slot.wanted) - passed_s)

    def _may_preempt(self, turn: Turn) -> bool:
        lower = turn.job.priority is not Priority.INTERACTIVE
        return lower and not self._policy.is_protected(turn.job, turn.run.made)

    def _left_s(self, turn: Turn) -> float:
        """Return how long a run will still take."""
        run, job = turn.run, turn.job
        answer_s = self._estimates.left_s(job, run.tokens, self._prompt_tokens(turn))
        if run.made or run.started_at is None:
            return answer_s
        passed_s = asyncio.get_running_loop().time() - run.started_at
        return max(0.0, self._first_token_s(turn) - passed_s) + answer_s

    def _prompt_tokens(self, turn: Turn) -> int:
        return self._estimates.prompt_tokens(turn.job) + turn.run.order.carried_tokens

    def _first_token_s(self, turn: Turn) -> float:
        order, rates = turn.run.order, self._paces[turn.job.request.model].rates
        prompt = self._prompt_tokens(turn)
        cached = round(prompt * turn.cached_chars / max(1, len(order.prompt)))
        uncached = max(0, prompt - cached)
        # Each piece begins anew.
        pieces = uncached // order.chunks.tokens if order.chunks else 0
        return rates.first_token_s(uncached, cached) + pieces * rates.first_token_s(0, cached)

    def _slice_s(self, job: Job) -> float:
        rates, tokens = self._paces[job.request.model].rates, self._policy.rules.protected_tokens
        return rates.slot_s(self._paces[job.request.model].tokens_of(200), 0, tokens)
