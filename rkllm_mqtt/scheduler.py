"""Joins the policy with what it cannot know: the clock, the slot, the speed of models, what is in the KV.

Rule 1: it decides nothing; `core.policy` does, and every decision can be recorded.
Rule 2: what a run used is charged and learned from when it ends, whatever its end was.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from rkllm_mqtt.caching.ledger import Ledger
from rkllm_mqtt.caching.prefixcache import PrefixCache
from rkllm_mqtt.caching.tiers import open_tiers
from rkllm_mqtt.caching.tracker import KvTracker, Restorable
from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Catalogue
from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.chunks import next_cut
from rkllm_mqtt.core.estimates import Estimates, prompt_chars, shared_chars
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.core.policy import is_question
from rkllm_mqtt.core.prefix import Chain
from rkllm_mqtt.core.rates import Rates
from rkllm_mqtt.core.savings import Savings
from rkllm_mqtt.core.seeds import seed_of
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.holding import Holding
from rkllm_mqtt.knowledge import Knowledge
from rkllm_mqtt.outlooks import Outlooks
from rkllm_mqtt.residence import LOADS_KEY
from rkllm_mqtt.runtime.order import ChunkOrder, RunOrder
from rkllm_mqtt.runtime.run import EndReason, Run, RunEnd
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.turn import Turn

_LEAST_WORK = 2.0
"""Of a piece, in floors of the first token: what is cut takes at most half as long again."""
_SETTLED_S = 0.02
"""After a run, when its outcome is on its way and the next run begun."""
_KEPT_EVERY_RUNS = 16
"""The rates are stored so often, and at the end."""
_KIN = 0.5
"""A job that saves so much of what the cache holds goes on with it."""
_TELLING = 4
"""A prompt of which so many times more is reused than computed shows that the cache is reused."""


class Scheduler:
    """What the dispatcher asks what to run, and everybody else when."""

    def __init__(
        self, config: Config, live: LiveJobs, slot: Slot, catalogue: Catalogue, journal: Journal
    ) -> None:
        """Keep the arguments, and let the jobs be estimated.

        Args:
            config: Of the daemon.
            live: The unfinished jobs, and the policy that `build_policy` made.
            slot: Where they run.
            catalogue: The models.
            journal: Keeps the rates; its clock is that of the policy.
        """
        self._policy = live.policy
        self._slot = slot
        self._journal = journal
        self._in_kv: ChatRequest | None = None
        self._last_job: Job | None = None
        self._savers: dict[str, Job] = {}
        """Whose conversations are being saved in front of others, by the file."""
        self.knowledge = Knowledge(slot, journal)
        """Of the runtime's KV cache and prompt-cache files."""
        self.tracker = KvTracker(slot, self.knowledge)
        """Knows what is in the KV cache."""
        self._columns: list[Turn] = []
        """Those of the batches in the slot."""
        self._resumed: set[str] = set()
        self._unkept = 0
        self._chunk_tokens = config.policy.prefill_chunk_tokens
        self.reuse: dict[str, bool] = {}
        """By model: whether a run is computed on what the one before left in the cache; absent: unknown."""
        self.paces = Paces(catalogue)
        """What has been learned of each model's speed."""
        self.savings = Savings()
        """What the KV cache and its files have saved."""
        self.cache = PrefixCache(
            slot,
            self.tracker,
            self.knowledge,
            self.paces,
            open_tiers(config),
            Ledger(journal, config.runtime.disk_write_mb_per_day),
        )
        """The prompt-cache files."""
        self.estimates = Estimates(self.paces)
        self.estimates.habits.remembered = config.limits.client_states
        self.outlooks = Outlooks(self._policy, slot, journal, self.estimates)
        self.holding = Holding(config, live.policy, journal.now)
        """Keeps the slot free for questions to come."""
        self.on_prompt: Callable[[Turn, Chain], None] = lambda _turn, _chain: None
        """Called with each job whose prompt was handed to the worker, and the beginnings of that."""
        live.cost_of = self.estimates.slot_s

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._chunk_tokens = config.policy.prefill_chunk_tokens
        self.holding.apply(config)

    def watch(self, turns: Sequence[Turn], wake: Callable[[], None]) -> None:
        """Look at these jobs in the slot from now on, the running one first; the list is the dispatcher's.

        `wake` is called when jobs that had to wait for the end of a hold need not wait any more.
        """
        self.outlooks.watch(turns)
        self.holding.wake = wake

    # decisions

    def next(self) -> Job | None:
        """Return the job to run next; it still waits."""
        return self._policy.choose(self._journal.now(), self._saving if self._in_kv else None)

    def should_replace(self, staged: Job) -> bool:
        """Return whether a staged job must give way to one that waits."""
        return self._policy.should_replace(staged, self._journal.now(), self._saving if self._in_kv else None)

    def should_preempt(self, turn: Turn, *, staged: bool) -> bool:
        """Return whether the running job must give way; `staged`: an interactive one is behind it."""
        return self._policy.should_preempt(turn.run.made, self._journal.now(), staged=staged)

    def chunks(self, job: Job, prompt: str, cached_chars: int, borders: Sequence[str]) -> ChunkOrder | None:
        """Return in what pieces the prompt of a job is computed; None: at once.

        Where nobody has probed whether it helps, the first long prompt does: it gives up at its second piece.
        """
        model = job.request.model
        if is_question(job) or self._is_reused(model) is False:
            return None
        tokens = self._piece_tokens(model)
        if not tokens:
            return None
        if len(prompt) - cached_chars <= tokens:
            return None  # no token is longer than its text
        estimate = self.paces[model].tokenizer.estimate(prompt[cached_chars:]).tokens
        chars = round(tokens * (len(prompt) - cached_chars) / max(1, estimate))
        if next_cut(prompt, cached_chars, chars, borders) is None:
            return None
        return ChunkOrder(cached_chars, tokens, chars, tuple(borders))

    def _piece_tokens(self, model: str) -> int:
        """Return the tokens of a piece, more than configured where each costs a long floor; 0: do not cut."""
        tokens, rates = self._chunk_tokens, self.paces[model].rates
        begin_s = rates.first_token_s(0)
        work_s = rates.first_token_s(tokens) - begin_s
        return ceil(tokens * max(1.0, _LEAST_WORK * begin_s / work_s)) if work_s > 0 else 0

    # what happens

    def claim(self, job: Job) -> None:
        """Take a waiting job into the slot."""
        self._policy.claim(job, self.estimates.slot_s(job), self._journal.now())
        self.holding.entered(job)

    def enter(self, job: Job) -> None:
        """Let a job into the idle slot that never waited."""
        self._policy.enter(job, self.estimates.slot_s(job), self._journal.now())
        self.holding.entered(job)

    def follow(self, turn: Turn, chain: Chain | None, file: Restorable | None = None) -> None:
        """Charge and learn from a run that was handed to the worker.

        Args:
            turn: The job's.
            chain: Of its prompt; None for a column of a batch, which has a KV cache of its own.
            file: The prompt-cache file that is loaded before it.
        """
        self._in_kv, self._last_job = (turn.job.request if chain is not None else None), turn.job
        self._track(turn, chain, file)
        if chain is not None:
            self.on_prompt(turn, chain)
        if turn.run.in_batch:
            self._columns.append(turn)
        self._resume(turn.job.request.model)
        turn.run.started.add_done_callback(
            lambda started: None if started.cancelled() else self._policy.begin(turn.job, self._journal.now())
        )
        turn.run.ended.add_done_callback(lambda _: self._settle(turn))

    def follow_prime(self, run: Run) -> None:
        """Follow a run of the idle slot: what it leaves in the KV cache is known only of a prime run."""
        order, chain = run.order, None
        saver = self._savers.pop(order.save or "", None)
        if saver is not None:
            run.ended.add_done_callback(lambda ended: self._charge_save(saver, ended))
        if order.prime:
            chain = self.tracker.chain_of(self._slot.wanted, order.lora, order.prompt)
        held = self.tracker.state.held
        if chain is None or held is None or not chain.begins(held):  # else it is a part of what is there
            self._in_kv = None
        tokens = self.paces[self._slot.wanted].tokenizer.estimate(order.prompt).tokens
        self.tracker.follow(run, chain, self.cache.held_by(order.restore), tokens=tokens)

    def is_foreign(self, job: Job) -> bool:
        """Return whether a job has little use for what is in the KV cache now."""
        last, there = self._last_job, self._in_kv
        if last is None or there is None:
            return True
        if job.request.conversation is not None and job.client == last.client:
            return job.request.conversation != there.conversation
        return shared_chars(job.request, there) < _KIN * prompt_chars(there)

    def save_in_front(self, job: Job) -> RunOrder | None:
        """Return a save that pays in front of a job that will replace what is in the KV cache.

        Nothing is ever done in front of an interactive job, nor for a lower class than that of the job.
        """
        last = self._last_job
        if last is None or job.priority is Priority.INTERACTIVE or job.priority < last.priority:
            return None
        if not self.cache.may_save or not self.is_foreign(job):
            return None
        order = self.cache.in_front()
        if order is not None and order.save is not None:
            self._savers[order.save] = last
        return order

    def _charge_save(self, saver: Job, ended: "asyncio.Future[RunEnd]") -> None:
        if not ended.cancelled() and ended.exception() is None:
            self._policy.charge(saver.client, saver.priority, ended.result().run_ms / 1000)

    def charge(self, client: str, seconds: float) -> None:
        """Charge a client for what was made ready for it."""
        self._policy.charge(client, Priority.INTERACTIVE, seconds)

    def forget_cache(self) -> None:
        """Nothing is known of the KV cache any more."""
        self._in_kv = None
        self.tracker.forget()

    async def keep(self) -> None:
        """Store what has been learned."""
        self._unkept = 0
        await self.knowledge.keep()
        await self.cache.ledger.keep()
        await self._journal.set_meta(LOADS_KEY, json.dumps(self._slot.loads.to_json()))
        for model in self._resumed:
            pace, key = self.paces[model], self._key(model)
            learned = {**pace.rates.to_json(), "reuse": self.reuse.get(model)}
            await self._journal.set_meta(key, json.dumps(learned))
            await self._journal.set_meta(f"tokens:{key}", json.dumps(pace.tokenizer.to_json()))

    @property
    def worth_keeping(self) -> bool:
        """Return whether enough was learned since it was stored."""
        return self._unkept >= _KEPT_EVERY_RUNS or self.cache.ledger.worth_keeping

    # inside

    def _saving(self, job: Job) -> float:
        return self.estimates.saving_s(job, self._in_kv) if self._in_kv else 0.0

    def _settle(self, turn: Turn) -> None:
        run, used_s = turn.run, 0.0
        if run.started_at is not None:
            used_s = asyncio.get_running_loop().time() - run.started_at
            if not run.ended.cancelled() and run.ended.exception() is None:
                used_s = run.ended.result().run_ms / 1000
                self._learn(turn, run.ended.result())
        self._policy.settle(turn.job, used_s, self._journal.now())
        self.holding.left(turn.job, called=bool(turn.answer.tool_calls), whole=_is_whole(run))
        if turn in self._columns:
            self._columns.remove(turn)
        column = next((other for other in self._columns if other.computing), None)
        if column is not None and self._policy.running is None:
            self._policy.begin(column.job, self._journal.now())  # the rest of its batch goes on

    def _track(self, turn: Turn, chain: Chain | None, file: Restorable | None) -> None:
        client, tokens = turn.job.client, turn.tokens.tokens
        tracked = self.tracker.follow(turn.run, chain, file, owner=client, tokens=tokens)

        def update(_future: "asyncio.Future[Any]") -> None:
            turn.match, turn.before = tracked.match, tracked.before

        turn.match = tracked.match
        turn.run.started.add_done_callback(update)
        turn.run.ended.add_done_callback(update)

    def _learn(self, turn: Turn, end: RunEnd) -> None:
        model = turn.job.request.model
        pace = self.paces[model]
        cached, computed = turn.measure(end, pace, self.estimates.habits)
        if not turn.run.in_batch and end.computed_tokens is not None:
            if not turn.run.order.prime:  # what is made ready is counted when a question uses it
                self.savings.count(pace.rates, cached, computed, turn.restore_s)
            self._learn_reuse(turn, cached, computed)
        self._unkept += 1
        asyncio.get_running_loop().call_later(_SETTLED_S, pace.rates.settle)
        if end.reuse is not None:
            self.reuse[model] = end.reuse
            self.knowledge.learn(model, **self._told_by_chunks(end.reuse))
        elif turn.run.order.chunks and not end.chunks and end.tokens:
            self.reuse[model] = False  # the runtime does not say

    def _is_reused(self, model: str) -> bool | None:
        """Return whether a piece is computed on the one before; None: unknown."""
        known = self.reuse.get(model)
        if known is None:
            facts = self.knowledge.facts_of(model)
            limited = self._slot.facts.capabilities.get("per_run_max_new_tokens")
            known = facts.reuses_finished if limited else facts.reuses_aborted
        return known

    def _learn_reuse(self, turn: Turn, cached: int, computed: int) -> None:
        """Take the fact that most of a prompt was not computed, where nobody has probed it."""
        before, facts = turn.before, self.knowledge.facts_of(turn.job.request.model)
        name = "reuses_aborted" if before.aborted else "reuses_finished"
        if turn.run.order.restore is None and getattr(facts, name) is None and cached > _TELLING * computed:
            found = {name: True}
            self.knowledge.learn(turn.job.request.model, **found | {"reuses_finished": True})

    def _told_by_chunks(self, reuse: bool) -> dict[str, bool]:
        """Return the facts that the chunks of a prompt tell; where runs have no limit, they are aborted."""
        if self._slot.facts.capabilities.get("per_run_max_new_tokens"):
            return {"reuses_finished": reuse}
        # What an aborted run leaves, a finished one leaves too; the contrary nobody knows.
        return {"reuses_aborted": reuse} | ({"reuses_finished": True} if reuse else {})

    def _resume(self, model: str) -> None:
        """Take up what an earlier process learned, once the runtime is known."""
        if model in self._resumed:
            return
        self._resumed.add(model)
        kept = self._journal.meta.get(self._key(model))
        if kept is None:
            return
        learned = json.loads(kept)
        self.paces[model].rates.resume(learned)
        self.paces[model].tokenizer.resume(
            json.loads(self._journal.meta.get(f"tokens:{self._key(model)}", "null"))
        )
        if isinstance(learned.get("reuse"), bool):
            self.reuse[model] = learned["reuse"]

    def _key(self, model: str) -> str:
        return f"rates:{model}:{self._slot.facts.version}"


def _is_whole(run: Run) -> bool:
    """Return whether a run has come to its own end."""
    ended = run.ended
    return not ended.cancelled() and ended.exception() is None and ended.result().reason is EndReason.STOP


class Paces(dict[str, Pace]):
    """What has been learned of each model's speed; of one that comes, what is believed of its name."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__()
        self._catalogue = catalogue

    def __missing__(self, model_id: str) -> Pace:
        model = self._catalogue.settings(model_id)
        pace = self[model_id] = Pace(rates=Rates(seed_of(model_id, model.file.stem if model else "")))
        return pace
