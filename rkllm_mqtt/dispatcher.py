"""The life of one job in the slot; `core.policy` and `core.verdict` decide, this acts.

Rule 1: an attempt is in the journal before its first token is published; an outcome before it is sent.
Rule 2: the next job is staged in the worker while one runs, so the slot does not wait for our commits.
Rule 3: nothing of a job runs after its `cancelled` final: the run has ended, or its process has.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rkllm_mqtt.answer import Send
from rkllm_mqtt.batching import Batching
from rkllm_mqtt.collector import Collector
from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Catalogue, Change
from rkllm_mqtt.core import policy
from rkllm_mqtt.core.errors import Code, Fault, SlotLost
from rkllm_mqtt.core.job import JobEvent, Priority
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.verdict import CANCELLED, EXPIRED, Ended
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.giving_up import GivingUp
from rkllm_mqtt.handover import Handover
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.orders import Orders
from rkllm_mqtt.outcomes import Outcomes
from rkllm_mqtt.preemption import TOKEN_S, Preemption, wind_down
from rkllm_mqtt.priming import Priming, prime_of
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.residence import Residence
from rkllm_mqtt.runtime.run import RunEnd
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.stays import Stays
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.turn import Turn

log = get_logger(__name__)

_STORED_S = 3.0
"""At the end: longest wait for a disk that does not take an outcome."""

_INTERNAL = Ended(
    JobEvent.GAVE_UP,
    "error",
    Fault(Code.INTERNAL, "the daemon failed on this request", "Its log has the reason; please report it."),
)


class Dispatcher:
    """Takes waiting jobs to the slot, one running and one staged."""

    def __init__(
        self,
        config: Config,
        live: LiveJobs,
        counters: Counters,
        journal: Journal,
        slot: Slot,
        catalogue: Catalogue,
        orders: Orders,
        outcomes: Outcomes,
        scheduler: Scheduler,
        *,
        send: Send,
        unloadable: Callable[[str], Fault | None],
        on_change: Callable[[], None],
    ) -> None:
        """Keep the arguments.

        Args:
            config: The whole configuration.
            live: Shared with the intake, which adds jobs.
            counters: Totals.
            journal: Open.
            slot: Running.
            catalogue: The models.
            orders: Makes the prompts.
            outcomes: Where a job ends.
            scheduler: Says what to run.
            send: Publishes an event or a delta.
            unloadable: Why a model cannot be loaded; None when it can, or that is not known yet.
            on_change: Called when the queue has changed.
        """
        self._live = live
        self._journal = journal
        self._slot = slot
        self._orders = orders
        self._outcomes = outcomes
        self._scheduler = scheduler
        self._giving_up = GivingUp(live, outcomes, unloadable)
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._turns: list[Turn] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self.paused = False
        self.stopping = False
        scheduler.watch(self._turns, self.wake)
        self._residence = Residence(config, live.policy, slot, catalogue, journal, self.wake)
        self._batching = Batching(slot, catalogue, journal, self.wake)
        self._preemption = Preemption(live, scheduler, self._turns)
        self._handover = Handover(
            config, slot, catalogue, orders, scheduler, send=send, on_token=self._preemption.on_token
        )
        self.priming = Priming(slot, scheduler.follow_prime, self.wake)
        """What the idle slot computes; others add their sources."""
        self.priming.sources.append(lambda: prime_of(scheduler.cache.idle()))
        self._collector = Collector(live, journal.now, self.wake)
        self._collector.window_s = config.runtime.batch_window_ms / 1000
        self._stays = Stays(
            config,
            live,
            counters,
            journal,
            orders,
            outcomes,
            scheduler,
            self._batching,
            send=send,
            left=self._left,
            stopping=lambda: self.stopping,
            on_change=self._changed,
        )

    @property
    def turns(self) -> Iterator[Turn]:
        """Return the jobs in the slot, the running one first."""
        return iter(self._turns)

    @property
    def handover(self) -> Handover:
        """Return the part that makes prompts and hands them to the worker."""
        return self._handover

    @property
    def batching(self) -> Batching:
        """Return what is known of batches."""
        return self._batching

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._collector.window_s = config.runtime.batch_window_ms / 1000
        self._stays.apply(config)
        self._residence.apply(config)
        self._handover.apply(config)

    def models_changed(self, change: Change) -> None:
        """Hear which models there are now: jobs of those that are gone, or broken, end."""
        self._giving_up.doubt(change.removed | change.changed)
        self._batching.models_changed()
        self._residence.models_changed()

    def wake(self) -> None:
        """Something has changed: a job came, the slot is ready, a pause ended."""
        self._wake.set()

    def arrived(self, job: Job) -> None:
        """A new job waits; an idle slot takes it at once, not a turn of the loop later."""
        self._scheduler.holding.heard(job)
        if self._tasks is not None and not self._wake.is_set() and self._slot.room and not self._turns:
            self._fill(self._tasks)
        if job in self._live.waiting:
            self._wake.set()

    def begin_early(self, job: Job) -> "asyncio.Future[bool] | None":
        """Let an idle slot compute a job while it is being stored; None when it has to wait for that.

        Resolve the future: True when the job is on disk and in the slot's list; False ends the run, and
        nothing of it was ever published.
        """
        if self._tasks is None or self.paused or self.stopping or self._residence.changes:
            return None
        if self._turns or self._live.waiting or not self._slot.room or self._slot.wanted != job.request.model:
            return None
        if self._slot.columns > 1:
            return None  # others may come
        if policy.is_expired(job, self._journal.now()) or job.request.conversation is not None:
            return None
        held = self._scheduler.holding.active and job.priority is not Priority.INTERACTIVE
        if held or job.request.prefix is not None:
            return None
        if not self._orders.ready(job, self.wake):
            return None
        if self._saves_first(job):
            return None
        try:
            turn = self._submit(job)
        except RenderError:
            return None  # told when it is stored, as every other job's
        self._scheduler.enter(job)
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._keep(self._tasks.create_task(self._serve_when(stored, turn), name="job-early"))
        return stored

    async def run(self) -> None:
        """Fill the slot whenever there is room; cancelled by the daemon's task group."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._residence.begin()
            while True:
                self._fill(tasks)
                await self._wake.wait()
                self._wake.clear()

    async def cancel(self, job: Job) -> None:
        """End a job that its sender does not want any more; its final follows by itself.

        Returns when the wish is on disk, so that the cancel itself can be acknowledged.
        """
        if job.cancel_requested:
            return
        job.cancel_requested = True
        if self._live.is_unrun(job):
            self._live.take(job)
            await self._outcomes.end_unrun(job, CANCELLED)
            return
        await self._outcomes.note(lambda: self._journal.request_cancel(job.seq))
        for turn in self._turns:
            if turn.job is job:
                turn.run.abort()

    def load(self, model_id: str) -> None:
        """Load another model as soon as the slot is empty; jobs of other models bring theirs back."""
        self._residence.wish(model_id)

    def expire(self, job: Job) -> None:
        """End a job whose deadline has passed."""
        if self._live.is_unrun(job) and self._tasks is not None:
            self._live.take(job)
            self._tasks.create_task(self._outcomes.end_unrun(job, EXPIRED), name="expire")
        for turn in self._turns:
            if turn.job is job:
                turn.expired = True
                turn.run.abort()

    async def stop(self, timeout_s: float) -> None:
        """Start nothing more, give the running job its time, then put it back; returns when it is stored.

        What the disk does not take in time was shown to nobody: it is computed again after the start.
        """
        self.stopping = True
        await self.priming.close(TOKEN_S)
        await wind_down(self._turns, timeout_s)
        loop = asyncio.get_running_loop()
        until = loop.time() + _STORED_S
        # Until their outcomes are stored and handed to the outbox.
        while self._serving and (left := until - loop.time()) > 0:
            await asyncio.wait(set(self._serving), timeout=left)
        self._orders.close()
        await self._outcomes.note(self._scheduler.keep)

    # choosing

    def _fill(self, tasks: asyncio.TaskGroup) -> None:
        self._giving_up.look(self._slot.wanted, tasks)
        if self._residence.changes:
            if self._turns:
                return
            self._residence.grant()
        while not self.paused and not self.stopping:
            job = self._scheduler.next()
            idle = job is None and not self._turns and not self._scheduler.holding.active
            self._batching.look(idle=idle)
            if idle:
                self._residence.rest()
                self.priming.idle()
            if job is None:
                return
            if policy.is_expired(job, self._journal.now()):
                self.expire(job)
                continue
            if self._giving_up.without_model(job, tasks):
                continue
            if not self._residence.has(job.request.model):
                self._bring(job)
                return
            if not self._orders.ready(job, self.wake):
                return  # its prompt is being made
            if self._slot.room < 1:
                self._clear_the_way()
                return
            self._preemption.look()
            jobs = self._together(job)
            if not jobs:
                return  # others may come, or something is done first
            self._take_in(jobs, tasks)

    def _saves_first(self, job: Job) -> bool:
        """Return whether what a job will replace in the KV cache is saved first: that pays, and is short."""
        order = self._scheduler.save_in_front(job) if self._slot.columns == 1 else None
        return order is not None and self.priming.insist(order)

    def _together(self, job: Job) -> list[Job]:
        """Return the jobs to hand to the worker now, of which this one's turn has come."""
        if self._slot.columns == 1:
            return [] if self._saves_first(job) else [job]
        busy = any(not turn.run.ended.done() for turn in self._turns)
        is_ready = partial(self._orders.ready, wake=self.wake)
        return self._collector.gather(job, self._slot.columns, busy=busy, ready=is_ready)

    def _take_in(self, jobs: Sequence[Job], tasks: asyncio.TaskGroup) -> None:
        for turn in self._submit_all(jobs, tasks):
            self._scheduler.claim(turn.job)
            self._live.take(turn.job)
            self._keep(tasks.create_task(self._serve(turn), name=f"job-{turn.job.seq}"))

    def _submit_all(self, jobs: Sequence[Job], tasks: asyncio.TaskGroup) -> list[Turn]:
        """Hand jobs to the worker; end those that cannot be rendered."""
        if self._slot.columns == 1:
            (job,) = jobs
            try:
                return [self._submit(job)]
            except RenderError as exc:
                self._giving_up.without_prompt(job, exc, tasks)
                return []
        return self._keep_turns(
            self._handover.submit_together(jobs, partial(self._giving_up.without_prompt, tasks=tasks))
        )

    def _keep(self, serving: asyncio.Task[None]) -> None:
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    def _submit(self, job: Job) -> Turn:
        (turn,) = self._keep_turns([self._handover.submit(job)])
        return turn

    def _keep_turns(self, turns: list[Turn]) -> list[Turn]:
        self._turns += turns
        self._residence.stay()
        self.priming.give_way()
        for turn in turns:
            turn.run.ended.add_done_callback(self._run_ended)
        return turns

    def _run_ended(self, _ended: "asyncio.Future[RunEnd]") -> None:
        """A run has ended: stage the next one now, before its own outcome is stored."""
        if self._tasks is not None:
            self._fill(self._tasks)

    def _bring(self, job: Job) -> None:
        """Load the model of a job as soon as the slot is empty."""
        self._clear_the_way()
        if not self._turns:
            self._residence.bring(job)

    def _clear_the_way(self) -> None:
        """Let the jobs in the slot give way, the staged one first: else it would begin in between."""
        self._make_room()
        self._preemption.look()

    def _make_room(self) -> None:
        """Take the staged job back when another's turn has come."""
        if len(self._turns) > 1:
            staged = self._turns[-1]
            if not staged.run.started.done() and self._scheduler.should_replace(staged.job):
                for turn in self._turns:
                    if turn is staged or (turn.run.in_batch and turn.run.batch == staged.run.batch):
                        turn.run.revoke()

    # one job

    async def _serve_when(self, stored: "asyncio.Future[bool]", turn: Turn) -> None:
        if await stored:
            await self._serve(turn)
            return
        turn.run.abort()
        with contextlib.suppress(SlotLost):
            await turn.run.ended
        turn.answer.drop()
        self._turns.remove(turn)
        self.wake()

    async def _serve(self, turn: Turn) -> None:
        """Follow one run to its end; belongs to the dispatcher's task group.

        The outermost line of a job: a bug of ours ends this job, not the daemon.
        """
        try:
            await self._stays.follow(turn)
        except Exception:
            log.exception("job_failed", job=turn.job.seq)
            if turn in self._turns:
                self._turns.remove(turn)
            turn.answer.drop()
            turn.run.abort()
            await self._outcomes.end_unrun(turn.job, _INTERNAL)
            self.wake()

    def _changed(self) -> None:
        """A job waits again, or has begun."""
        self._on_change()
        self.wake()

    def _left(self, turn: Turn) -> None:
        self._turns.remove(turn)
        self.wake()
