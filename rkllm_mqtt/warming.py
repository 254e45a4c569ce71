"""Make ready in idle time what the next question most likely begins with.

Rule 1: only for the model that is loaded, never while anything waits, runs, or is held for somebody.
Rule 2: it is stopped at its next chunk when a job comes, and begins again when the slot is idle again.
Rule 3: what was made ready once is not made ready again before another run could have replaced it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Change
from rkllm_mqtt.core.chat import Address, ChatRequest, PrefixWish
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.prefix import Chain
from rkllm_mqtt.core.prefixes import PAUSE_S, Prefix, Uses
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.core.warmth import Budget, Candidate, Sighted, Sightings, next_to_warm
from rkllm_mqtt.handover import Handover
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.priming import Prime, Priming
from rkllm_mqtt.registrations import Registrations, day_of
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.runtime.order import LoraOrder, prime_order
from rkllm_mqtt.runtime.run import Run, RunEnd
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.turn import Turn

log = get_logger(__name__)

_WARM = PrefixWish("warm")
_COVERED = 0.95
"""A prefix of which so much is in the KV cache is warm: its last block is not known more finely."""


class Beginning(Struct, frozen=True, eq=False):
    """A beginning of prompts as the loaded model computes it."""

    name: str
    """What tells it from others: a hash of its text."""
    job: Job
    """A stand-in of who gains, and pays; it is in no queue and no journal."""
    text: str
    tokens: int
    """Estimated once: it only weighs."""
    chain: Chain
    lora: LoraOrder | None
    uses: Uses
    borders: tuple[str, ...] = ()
    """Strings that begin a message."""
    prefix: Prefix | None = None
    """The registration; None for one that was found."""


class Warming:
    """A source of work for the idle slot."""

    def __init__(
        self,
        config: Config,
        slot: Slot,
        scheduler: Scheduler,
        handover: Handover,
        priming: Priming,
        registrations: Registrations,
        now: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the arguments, and listen to the prompts that run.

        Args:
            config: Of the daemon.
            slot: Where they run.
            scheduler: Knows the KV cache and the speed of models.
            handover: Makes prompts and their orders.
            priming: Works in the idle slot.
            registrations: What is registered.
            now: The journal clock.
            clock: Unix seconds.
        """
        self._is_on = config.policy.idle_warm
        self._node = config.node
        self._base = config.base
        self._slot = slot
        self._scheduler = scheduler
        self._handover = handover
        self._priming = priming
        self._registrations = registrations
        self._now = now
        self._clock = clock
        self._budget = Budget()
        self._sightings = Sightings()
        self._jobs: dict[Prefix, Job] = {}
        """Stand-ins of the registrations, for whom prompts are made."""
        self._made: dict[Prefix, Beginning | None] = {}
        """None: it cannot be rendered."""
        self._found: dict[str, Beginning] = {}
        """The latest that requests share, by the hash of their text."""
        self._tried: tuple[str, int | None] | None = None
        """What was made ready last, in which worker, and nothing has run since."""
        self._timer: asyncio.TimerHandle | None = None
        self.runs = 0
        """Prime runs of prefixes in idle time."""
        scheduler.on_prompt = self._heard
        registrations.on_change = priming.wake
        priming.sources.append(self.source)

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._is_on = config.policy.idle_warm
        self._priming.wake()

    def source(self) -> Prime | None:
        """Return the prime run of the beginning that is worth most now; None: none is worth a run."""
        if not self._is_on or self._slot.loaded is None or not self._can_reuse():
            return None
        beginnings = {beginning.name: beginning for beginning in self._beginnings()}
        chosen = next_to_warm([self._weighed(beginning) for beginning in beginnings.values()])
        if chosen is None or (chosen.name, self._slot.pid) == self._tried:
            return None
        beginning, now = beginnings[chosen.name], self._now()
        missing_s = chosen.saves_s - chosen.there_s
        if not self._budget.has(missing_s, now):
            return None
        self._tried = chosen.name, self._slot.pid
        self.runs += 1
        log.debug("prefix_warmed", client=beginning.job.client, chars=len(beginning.text), saves_s=missing_s)
        order = prime_order(beginning.text, lora=beginning.lora)
        order = self._handover.prime(
            beginning.job, order, beginning.borders, is_registered=beginning.prefix is not None
        )
        return Prime(order, partial(self._ended, beginning))

    def models_changed(self, change: Change) -> None:
        """Hear which models there are now: what begins the prompts of a changed one is made anew."""
        other = change.added | change.removed | change.changed
        for prefix in [prefix for prefix in self._made if prefix.request.model in other]:
            del self._made[prefix]
        self._priming.wake()

    def told(self) -> dict[str, str] | None:
        """Return the registered prefix that is worth most, and whether it is warm; None without one."""
        if self._slot.loaded is None:
            return None
        found = list(self._registered())
        weighed = {beginning: self._weighed(beginning) for beginning in found}
        best = max(found, key=lambda each: weighed[each].chance * weighed[each].saves_s, default=None)
        if best is None or best.prefix is None:
            return None
        warm = self._scheduler.tracker.held(best.chain) >= _COVERED * len(best.text)
        return {"client": best.job.client, "name": best.prefix.name, "state": "warm" if warm else "cold"}

    # inside

    def _can_reuse(self) -> bool:
        return self._scheduler.knowledge.facts_of(self._slot.wanted).can_reuse

    def _heard(self, turn: Turn, chain: Chain) -> None:
        """A job was handed to the worker: whatever was made ready may be replaced, and was perhaps used."""
        self._tried = None
        request, text = turn.job.request, turn.run.order.prompt
        if request.prefix is not None or turn.carried is not None or turn.rendered.mode == "runtime":
            return
        when = time.localtime(self._clock())
        self._sightings.see(
            turn.job.client, request.model, request.lora, text, chain, day=day_of(when), hour=when.tm_hour
        )
        for prefix, beginning in self._made.items():
            if beginning is not None and text.startswith(beginning.text):
                self._registrations.note_use(prefix)

    def _beginnings(self) -> Iterator[Beginning]:
        """Yield what could be made ready for the loaded model."""
        registered = list(self._registered())
        yield from registered
        for sighted in self._sightings.common(self._slot.wanted):
            if any(one.text.startswith(sighted.text) for one in registered):
                continue
            found = self._found.get(sighted.chain.name)
            fingerprint = self._scheduler.tracker.fingerprint(sighted.model, found.lora if found else None)
            if found is None or found.chain.fingerprint != fingerprint:
                found = self._find(sighted)
            if found is not None:
                yield found

    def _registered(self) -> Iterator[Beginning]:
        """Yield the registered ones of these."""
        model, now = self._slot.wanted, self._now()
        self._let_go(set(self._registrations.prefixes))
        for prefix in self._registrations.prefixes:
            if prefix.request.model != model or prefix.is_expired(now):
                continue
            if (due_s := prefix.changed_at + PAUSE_S - now) > 0:
                self._look_again(due_s)
                continue
            beginning = self._render(prefix)
            if beginning is not None:
                yield beginning

    def _let_go(self, registered: AbstractSet[Prefix]) -> None:
        """Forget what was made of prefixes that are no more registered, their files too."""
        for prefix in self._jobs.keys() - registered:
            del self._jobs[prefix]
        lost = [self._made.pop(prefix) for prefix in self._made.keys() - registered]
        needed = {made.chain.name for made in self._made.values() if made is not None}
        for made in lost:
            if made is not None and made.chain.name not in needed:
                self._scheduler.cache.forget(made.chain)

    def _find(self, sighted: Sighted) -> Beginning | None:
        """Return a beginning that requests share; None when it needs an adapter that is gone."""
        try:
            lora = self._handover.lora_of(sighted.model, sighted.lora)
        except RenderError:
            return None
        request = ChatRequest(messages=(), model=sighted.model, lora=sighted.lora, max_tokens=1, prefix=_WARM)
        job = self._stand_in(sighted.client, request)
        found = self._beginning(job, sighted.text, lora, sighted.uses)
        while len(self._found) >= self._sightings.most:
            del self._found[next(iter(self._found))]
        self._found[sighted.chain.name] = found
        return found

    def _beginning(
        self,
        job: Job,
        text: str,
        lora: LoraOrder | None,
        uses: Uses,
        borders: tuple[str, ...] = (),
        prefix: Prefix | None = None,
    ) -> Beginning:
        chain = self._scheduler.tracker.chain_of(job.request.model, lora, text)
        tokens = self._scheduler.paces[job.request.model].tokenizer.estimate(text).tokens
        return Beginning(chain.name, job, text, tokens, chain, lora, uses, borders, prefix)

    def _render(self, prefix: Prefix) -> Beginning | None:
        """Return a registration as text; None when it is not ready yet, or cannot be rendered."""
        if prefix in self._made:
            return self._fresh(prefix)
        job = self._jobs.get(prefix)
        if job is None:  # kept, for its prompt may be made in the background
            request = replace(prefix.request, prefix=replace(_WARM, name=prefix.name))
            job = self._jobs[prefix] = self._stand_in(prefix.client, request)
        try:
            prepared = self._handover.prepare(job, self._priming.wake)
        except RenderError as exc:
            log.warning("prefix_not_rendered", client=prefix.client, name=prefix.name, reason=str(exc))
            self._made[prefix] = None
            return None
        if prepared is None:
            return None
        prompt, order = prepared
        borders = prompt.rendered.specials
        made = self._beginning(job, order.prompt, order.lora, prefix.uses, borders, prefix)
        self._made[prefix] = made
        return made

    def _fresh(self, prefix: Prefix) -> Beginning | None:
        """Return what was rendered, as the library that is loaded now computes it."""
        made = self._made[prefix]
        if made is None:
            return None
        fingerprint = self._scheduler.tracker.fingerprint(prefix.request.model, made.lora)
        if fingerprint == made.chain.fingerprint:
            return made
        del self._made[prefix]
        return self._render(prefix)

    def _weighed(self, beginning: Beginning) -> Candidate:
        when = time.localtime(self._clock())
        per_hour = beginning.uses.per_hour(day_of(when), when.tm_hour, when.tm_min)
        pace = self._scheduler.paces[self._slot.wanted]
        tokens = beginning.tokens
        there = round(tokens * self._there(beginning) / max(1, len(beginning.text)))
        none_s = pace.rates.first_token_s(tokens)
        return Candidate(
            beginning.name,
            per_hour,
            none_s - pace.rates.first_token_s(0, tokens),
            none_s - pace.rates.first_token_s(tokens - there, there),
        )

    def _there(self, beginning: Beginning) -> int:
        """Return how many of its characters are in the KV cache."""
        return self._scheduler.tracker.expected(beginning.chain).known

    def _ended(self, beginning: Beginning, _run: Run, end: RunEnd | None) -> None:
        if end is None:
            return
        self._budget.spend(end.run_ms / 1000)
        self._scheduler.charge(beginning.job.client, end.run_ms / 1000)

    def _look_again(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._priming.wake()

    def _stand_in(self, client: str, request: ChatRequest) -> Job:
        return Job(
            seq=0,
            id="",
            request=request,
            address=Address(Mailbox(self._base, self._node, client), None),
            priority=Priority.BACKGROUND,
            accepted_at=0.0,
            queued_at=0.0,
            deadline=float("inf"),
        )
