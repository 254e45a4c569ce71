"""Follow a job through its stay in the slot: begun, ended, interrupted, lost; `core.verdict` says which.

Rule 1: an attempt is in the journal before its first token is published; an outcome before it is sent.
Rule 2: what an answer goes on with after an interruption is stored before the job waits again.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from rkllm_mqtt.answer import Send, publish_event
from rkllm_mqtt.batching import Batching
from rkllm_mqtt.config import Config
from rkllm_mqtt.core import policy
from rkllm_mqtt.core.answers import Timing
from rkllm_mqtt.core.job import JobEvent
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.verdict import (
    CANCELLED,
    EXPIRED,
    Again,
    Ended,
    GiveUp,
    Lost,
    Preempted,
    PutBack,
    after_slot_lost,
    judge,
)
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.formats import examine
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.orders import Orders
from rkllm_mqtt.outcomes import Outcomes, Produced
from rkllm_mqtt.readouts import likeliest, members_of
from rkllm_mqtt.runtime.run import EndReason
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.turn import Turn

log = get_logger(__name__)


class Stays:
    """What happens to the jobs in the slot."""

    def __init__(
        self,
        config: Config,
        live: LiveJobs,
        counters: Counters,
        journal: Journal,
        orders: Orders,
        outcomes: Outcomes,
        scheduler: Scheduler,
        batching: Batching,
        *,
        send: Send,
        left: Callable[[Turn], None],
        stopping: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        """Keep the arguments.

        Args:
            config: Of the daemon.
            live: Takes back the jobs that wait again.
            counters: Totals.
            journal: Open.
            orders: Remembers answers.
            outcomes: Where a job ends.
            scheduler: Knows the speed of models.
            batching: Learns what batches gain.
            send: Publishes an event.
            left: Called when a run has ended, before what follows is stored.
            stopping: Whether the daemon ends.
            on_change: Called when a job waits again or has begun.
        """
        self._config = config
        self._live = live
        self._counters = counters
        self._journal = journal
        self._orders = orders
        self._outcomes = outcomes
        self._scheduler = scheduler
        self._batching = batching
        self._send = send
        self._left = left
        self._stopping = stopping
        self._on_change = on_change

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._config = config

    async def follow(self, turn: Turn) -> None:
        """Return when the job has its outcome, or waits again."""
        await self._begin(turn)
        verdict = judge(await turn.finished(self._stopping))
        turn.answer.close()
        self._left(turn)
        self._counters.tokens_discarded += turn.end.repeated if turn.end else 0
        match verdict:
            case PutBack():
                await self._put_back(turn)
            case Preempted():
                self._counters.preempted += 1
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
        pace = self._scheduler.paces[job.request.model]
        goes_on, job.continues = job.continues, False
        job.attempt += not goes_on
        attempt = job.attempt
        await self._outcomes.keep(lambda: self._journal.claim(job.seq, attempt))
        if not goes_on:
            if attempt > 1 and not job.restart_told:
                self._tell_restart(job, attempt)
            publish_event(
                self._send,
                job,
                "started",
                attempt=attempt,
                model=job.request.asked_model,
                cached_tokens=pace.tokens_of(turn.cached_chars),
            )
        job.restart_told = False
        first_token_s = self._scheduler.outlooks.first_token_s(turn)
        turn.answer.open(started_at=run.started_at or 0.0, prefill_s=first_token_s)
        log.debug("job_started", job=job.seq, client=job.client, attempt=attempt)
        self._on_change()

    async def _put_back(self, turn: Turn) -> None:
        """Let a job wait again; one whose run was interrupted at a token goes on from there."""
        job, end = turn.job, turn.end
        if not turn.run.started.cancelled():
            carried = None
            if end is not None:
                self._counters.busy_s += end.run_ms / 1000
            if end is not None and end.reason is EndReason.PREEMPTED:
                pace = self._scheduler.paces[job.request.model]
                job.carried = turn.carry(pace, self._journal.now() - job.queued_at)
                job.continues, carried = True, job.carried.to_json()
            log.info("job_interrupted", job=job.seq, attempt=job.attempt, tokens=job.made)
            await self._outcomes.keep(lambda: self._journal.requeue(job.seq, job.crashes, carried))
        await self._wait_again(job)

    def _tell_restart(self, job: Job, attempt: int) -> None:
        """Tell which deltas stay valid: those up to the last interruption, which are stored."""
        valid = job.carried.deltas if job.carried else 0
        publish_event(self._send, job, "restarted", attempt=attempt, from_seq=valid)

    async def _wait_again(self, job: Job) -> None:
        """Put a job back into the queue, unless its end came while its return was being stored."""
        if job.cancel_requested or policy.is_expired(job, self._journal.now()):
            await self._outcomes.end_unrun(job, CANCELLED if job.cancel_requested else EXPIRED)
        else:
            job.shown_position = 0
            self._live.put_back(job)
        self._on_change()

    async def _retry(self, turn: Turn, reason: str) -> None:
        job = turn.job
        if turn.run.in_batch:
            # Nobody knows whose fault it is; they run one by one from now on, and then it counts.
            self._batching.lost(job.request.model, reason, job.seq)
        elif not turn.run.killed_by_restore:  # that was the file's fault
            job.crashes += 1
        self._scheduler.forget_cache()
        decision = after_slot_lost(job.crashes, self._config.runtime.max_attempts, reason)
        log.warning("slot_lost", job=job.seq, attempt=job.attempt, crashes=job.crashes, reason=reason)
        if isinstance(decision, GiveUp):
            self._batching.acquit(job.request.model, job.seq)
            await self._finish(turn, Ended(JobEvent.GAVE_UP, "error", decision.fault))
            return
        self._counters.retried += 1
        await self._keep_batching()
        await self._outcomes.keep(lambda: self._journal.requeue(job.seq, job.crashes))
        self._tell_restart(job, job.attempt + 1)
        job.restart_told = True
        await self._wait_again(job)

    async def _correct(self, turn: Turn, again: Again) -> None:
        """Let a job run once more, to correct an answer of which nothing was published."""
        job = turn.job
        self._learn(turn)
        job.correction, job.carried = (turn.answer.text, again.problem), None
        log.info("answer_to_be_corrected", job=job.seq, attempt=job.attempt)
        await self._outcomes.keep(lambda: self._journal.requeue(job.seq, job.crashes, carried=""))
        await self._wait_again(job)

    def _learn(self, turn: Turn) -> Timing:
        """Take the figures of a run that has ended; return its times."""
        timing = turn.timing(self._journal.now() - turn.job.queued_at)
        turn.teach(self._scheduler.paces[turn.job.request.model], timing.ttft_ms)
        if turn.end is not None:
            self._counters.busy_s += turn.end.run_ms / 1000
            self._batching.learn(turn.job.request.model, turn.run, turn.end)
        return timing

    async def _finish(self, turn: Turn, verdict: Ended) -> None:
        job, answer, pace = turn.job, turn.answer, self._scheduler.paces[turn.job.request.model]
        timing = self._learn(turn)
        members: Mapping[str, Any] = {}
        if job.request.task != "chat" and verdict.fault is None and turn.end is not None:
            answer.text, members = likeliest(job.request, turn.end), members_of(job.request, turn.end)
        if job.request.prefix is not None and verdict.fault is None:
            members = {"prefix": turn.readiness()}
        produced = Produced(
            answer.text, answer.thinking, turn.usage(pace), timing, answer.deltas, answer.tool_calls, members
        )
        if verdict.fault is None and turn.end is not None and job.request.prefix is None:
            self._orders.remember(job, turn.rendered, answer, turn.end.written)
        await self._outcomes.end(job, verdict, produced)
        if self._scheduler.worth_keeping:
            await self._outcomes.note(self._scheduler.keep)
        await self._keep_batching()

    async def _keep_batching(self) -> None:
        if self._batching.worth_keeping:
            await self._outcomes.note(self._batching.keep)
