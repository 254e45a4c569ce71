"""The life of one job in the slot; `core.policy` and `core.verdict` decide, this acts.

Rule 1: an attempt is in the journal before its first token is published; an outcome before it is sent.
Rule 2: the next job is staged in the worker while one runs, so the slot does not wait for our commits.
Rule 3: nothing of a job runs after its `cancelled` final: the run has ended, or its process has.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rkllm_mqtt.answer import Answer, Send, publish_event
from rkllm_mqtt.config import Config
from rkllm_mqtt.core import policy
from rkllm_mqtt.core.answers import Timing
from rkllm_mqtt.core.errors import Code, Fault, SlotLost
from rkllm_mqtt.core.job import JobEvent
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.pace import common_prefix
from rkllm_mqtt.core.verdict import CANCELLED, EXPIRED, Again, Ended, Lost, PutBack, judge
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.formats import examine
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.orders import Orders
from rkllm_mqtt.outcomes import Outcomes, Produced
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.runtime.run import RunEnd
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler
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
            orders: Makes the prompts.
            outcomes: Where a job ends.
            scheduler: Says what to run.
            send: Publishes an event or a delta.
            unloadable: Why a model cannot be loaded; None when it can, or that is not known yet.
            on_change: Called when the queue has changed.
        """
        self._config = config
        self._live = live
        self._counters = counters
        self._journal = journal
        self._slot = slot
        self._orders = orders
        self._outcomes = outcomes
        self._scheduler = scheduler
        self._send = send
        self._unloadable = unloadable
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._turns: list[Turn] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._last_prompt = ""
        self._load_next: str | None = None
        self._tasks: asyncio.TaskGroup | None = None
        scheduler.watch(self._turns)
        self.paused = False
        self.stopping = False

    @property
    def turns(self) -> Iterator[Turn]:
        """Return the jobs in the slot, the running one first."""
        return iter(self._turns)

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._config = config

    def wake(self) -> None:
        """Something has changed: a job came, the slot is ready, a pause ended."""
        self._wake.set()

    def arrived(self, job: Job) -> None:
        """A new job waits; an idle slot takes it at once, not a turn of the loop later."""
        if self._tasks is not None and not self._wake.is_set() and self._slot.room and not self._turns:
            self._fill(self._tasks)
        if job in self._live.waiting:
            self._wake.set()

    def begin_early(self, job: Job) -> "asyncio.Future[bool] | None":
        """Let an idle slot compute a job while it is being stored; None when it has to wait for that.

        Resolve the future: True when the job is on disk and in the slot's list; False ends the run, and
        nothing of it was ever published.
        """
        if self._tasks is None or self.paused or self.stopping or self._load_next is not None:
            return None
        if self._turns or self._live.waiting or not self._slot.room or self._slot.wanted != job.request.model:
            return None
        if policy.is_expired(job, self._journal.now()) or job.request.conversation is not None:
            return None
        if not self._orders.ready(job, self.wake):
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
        self._load_next = model_id
        self.wake()

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
        for turn in self._turns[1:]:
            turn.run.revoke()
        ends = [turn.run.ended for turn in self._turns]
        if ends:
            await asyncio.wait(ends, timeout=timeout_s)
            for turn in self._turns:
                turn.run.abort()
            await asyncio.wait(ends)  # an abort has clocks of its own
        loop = asyncio.get_running_loop()
        until = loop.time() + _STORED_S
        # Until their outcomes are stored and handed to the outbox.
        while self._serving and (left := until - loop.time()) > 0:
            await asyncio.wait(set(self._serving), timeout=left)
        self._orders.close()
        await self._outcomes.note(self._scheduler.keep)

    # choosing

    def _fill(self, tasks: asyncio.TaskGroup) -> None:
        self._give_up_unloadable(tasks)
        if self._load_next is not None:
            if self._turns:
                return
            self._slot.use(self._load_next)
            self._load_next = None
        while not self.paused and not self.stopping:
            job = self._scheduler.next()
            if job is None:
                return
            if policy.is_expired(job, self._journal.now()):
                self.expire(job)
                continue
            if job.request.model != self._slot.wanted:
                if not self._turns:
                    self._slot.use(job.request.model)
                return
            if not self._orders.ready(job, self.wake):
                return  # its prompt is being made
            if self._slot.room < 1:
                self._make_room()
                return
            try:
                turn = self._submit(job)
            except RenderError as exc:
                self._live.take(job)
                fault = Fault(Code(exc.code), str(exc), exc.hint)
                tasks.create_task(
                    self._outcomes.end_unrun(job, Ended(JobEvent.GAVE_UP, "error", fault)), name="give-up"
                )
                continue
            self._scheduler.claim(job)
            self._live.take(job)
            self._keep(tasks.create_task(self._serve(turn), name=f"job-{job.seq}"))

    def _keep(self, serving: asyncio.Task[None]) -> None:
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    def _submit(self, job: Job) -> Turn:
        prompt, order = self._orders.make(job)
        rendered = prompt.rendered
        runtime = self._config.runtime
        limit_s = self._scheduler.paces[job.request.model].first_token_limit_s(
            len(rendered.text), max(runtime.abort_grace_s, runtime.stall_timeout_s)
        )
        order = replace(order, first_token_limit_s=limit_s)
        answer = Answer(job, self._send, interval_s=self._config.delta_interval_ms / 1000)
        run = self._slot.submit(order, answer.take)
        cached_chars = common_prefix(self._last_prompt, rendered.text)
        self._last_prompt = rendered.text
        turn = Turn(job, run, answer, rendered, cached_chars)
        self._scheduler.follow(turn)
        run.ended.add_done_callback(self._run_ended)
        self._turns.append(turn)
        return turn

    def _run_ended(self, _ended: "asyncio.Future[RunEnd]") -> None:
        """A run has ended: stage the next one now, before its own outcome is stored."""
        if self._tasks is not None:
            self._fill(self._tasks)

    def _make_room(self) -> None:
        """Take the staged job back when another's turn has come."""
        if len(self._turns) > 1:
            staged = self._turns[-1]
            if not staged.run.started.done() and self._scheduler.should_replace(staged.job):
                staged.run.revoke()

    def _give_up_unloadable(self, tasks: asyncio.TaskGroup) -> None:
        fault = self._unloadable(self._slot.wanted)
        if fault is None:
            return
        verdict = Ended(JobEvent.GAVE_UP, "error", fault)
        for job in [job for job in self._live.waiting if job.request.model == self._slot.wanted]:
            self._live.take(job)
            tasks.create_task(self._outcomes.end_unrun(job, verdict), name="give-up")

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
            await self._follow(turn)
        except Exception:
            log.exception("job_failed", job=turn.job.seq)
            if turn in self._turns:
                self._turns.remove(turn)
            turn.answer.drop()
            turn.run.abort()
            await self._outcomes.end_unrun(turn.job, _INTERNAL)
            self.wake()

    async def _follow(self, turn: Turn) -> None:
        await self._begin(turn)
        verdict = judge(await turn.finished(lambda: self.stopping))
        turn.answer.close()
        self._turns.remove(turn)
        self.wake()
        match verdict:
            case PutBack():
                await self._put_back(turn)
            case Lost(reason):
                await self._retry(turn, reason)
            case Ended():
                judged = await examine(turn.job, turn.answer, verdict)
                if isinstance(judged, Again):
                    await self._correct(turn, judged)
                else:
                    await self._finish(turn, judged)

    async def _begin(self, turn: Turn) -> None:
        run, job = turn.run, turn.job
        first: set[asyncio.Future[Any]] = {run.started, run.ended}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not run.started.done() or run.started.cancelled():
            return
        job.attempt += 1
        attempt = job.attempt
        await self._outcomes.keep(lambda: self._journal.claim(job.seq, attempt))
        if attempt > 1 and not job.restart_told:
            publish_event(self._send, job, "restarted", attempt=attempt, from_seq=0)
        job.restart_told = False
        pace = self._scheduler.paces[job.request.model]
        publish_event(
            self._send,
            job,
            "started",
            attempt=attempt,
            model=job.request.model,
            cached_tokens=pace.tokens_of(turn.cached_chars),
        )
        known = pace.prefill_ms_per_token is not None
        prefill_s = pace.prefill_s(len(turn.rendered.text) - turn.cached_chars) if known else None
        turn.answer.open(started_at=run.started_at or 0.0, prefill_s=prefill_s)
        log.debug("job_started", job=job.seq, client=job.client, attempt=attempt)
        self._on_change()

    async def _put_back(self, turn: Turn) -> None:
        job = turn.job
        if not turn.run.started.cancelled():
            await self._outcomes.keep(lambda: self._journal.requeue(job.seq, job.crashes))
        await self._wait_again(job)

    async def _wait_again(self, job: Job) -> None:
        """Put a job back into the queue, unless its end came while its return was being stored."""
        if job.cancel_requested or policy.is_expired(job, self._journal.now()):
            await self._outcomes.end_unrun(job, CANCELLED if job.cancel_requested else EXPIRED)
        else:
            self._live.put_back(job)
            self._on_change()
        self.wake()

    async def _retry(self, turn: Turn, reason: str) -> None:
        job = turn.job
        job.crashes += 1
        self._last_prompt = ""
        self._scheduler.forget_cache()
        decision = policy.after_slot_lost(job.crashes, self._config.runtime.max_attempts, reason)
        log.warning("slot_lost", job=job.seq, attempt=job.attempt, crashes=job.crashes, reason=reason)
        if isinstance(decision, policy.GiveUp):
            await self._finish(turn, Ended(JobEvent.GAVE_UP, "error", decision.fault))
            return
        self._counters.retried += 1
        await self._outcomes.keep(lambda: self._journal.requeue(job.seq, job.crashes))
        publish_event(self._send, job, "restarted", attempt=job.attempt + 1, from_seq=0)
        job.restart_told = True
        await self._wait_again(job)

    async def _correct(self, turn: Turn, again: Again) -> None:
        """Let a job run once more, to correct an answer of which nothing was published."""
        job = turn.job
        self._learn(turn)
        job.correction = turn.answer.text, again.problem
        log.info("answer_to_be_corrected", job=job.seq, attempt=job.attempt)
        await self._outcomes.keep(lambda: self._journal.requeue(job.seq, job.crashes))
        await self._wait_again(job)

    def _learn(self, turn: Turn) -> Timing:
        """Take the figures of a run that has ended; return its times."""
        timing = turn.timing(self._journal.now() - turn.job.queued_at)
        turn.teach(self._scheduler.paces[turn.job.request.model], timing.ttft_ms)
        self._counters.busy_s += turn.end.run_ms / 1000 if turn.end else 0.0
        return timing

    async def _finish(self, turn: Turn, verdict: Ended) -> None:
        job, answer, pace = turn.job, turn.answer, self._scheduler.paces[turn.job.request.model]
        timing = self._learn(turn)
        produced = Produced(
            answer.text, answer.thinking, turn.usage(pace), timing, answer.deltas, answer.tool_calls
        )
        if verdict.fault is None and turn.end is not None:
            self._orders.remember(job, turn.rendered, answer, turn.end.written)
        await self._outcomes.end(job, verdict, produced)
        if self._scheduler.worth_keeping:
            await self._outcomes.note(self._scheduler.keep)
