"""Give a job its one outcome: build it, store it, and only then hand it to delivery."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from rkllm_mqtt.config import Config
from rkllm_mqtt.conversations import turn_of
from rkllm_mqtt.core.answers import Final, Timing, Usage, build_outcome
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.verdict import Ended
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.store.errors import JobError, StoreError
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_STORE_RETRY_S = 1.0


_NOTHING_USED = Usage()
_NO_TIME = Timing()


class Produced(Struct, frozen=True):
    """What a run made of a job."""

    text: str = ""
    thinking: str = ""
    usage: Usage = _NOTHING_USED
    timing: Timing = _NO_TIME
    deltas: int = 0
    tool_calls: Sequence[Mapping[str, Any]] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    """Of the final, for a task that is no chat."""


class Outcomes:
    """The only place where a job ends."""

    def __init__(
        self,
        config: Config,
        live: LiveJobs,
        counters: Counters,
        journal: Journal,
        *,
        post: Callable[[Job, bytes], None],
        payload_limit: Callable[[Address], int],
        on_change: Callable[[], None],
    ) -> None:
        """Keep the arguments.

        Args:
            config: Of the daemon.
            live: Unfinished jobs; a finished one is forgotten.
            counters: Totals.
            journal: Open.
            post: Takes an outcome that is stored, to be delivered.
            payload_limit: Largest final that the broker takes for an address, bytes.
            on_change: Called when the queue has changed.
        """
        self._config = config
        self._live = live
        self._counters = counters
        self._journal = journal
        self._post = post
        self._payload_limit = payload_limit
        self._on_change = on_change

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._config = config

    async def end_unrun(self, job: Job, verdict: Ended) -> None:
        """End a job that is in no run; what an interrupted one has made so far is its partial output."""
        waited_ms = (self._journal.now() - job.queued_at) * 1000
        carried = job.carried
        if carried is None:
            await self.end(job, verdict, Produced(timing=Timing(queue_ms=waited_ms, total_ms=waited_ms)))
            return
        produced = Produced(
            carried.text,
            carried.thinking,
            Usage(carried.prompt_tokens, carried.tokens, carried.cached_tokens, carried.cached_estimated),
            Timing(
                queue_ms=carried.queue_ms,
                ttft_ms=carried.ttft_ms,
                prefill_ms=carried.prefill_ms,
                generate_ms=carried.generate_ms,
                total_ms=waited_ms,
            ),
            carried.deltas,
            carried.tool_calls,
        )
        await self.end(job, verdict, produced)

    async def end(self, job: Job, verdict: Ended, produced: Produced) -> None:
        """Store the outcome of a job and let it be delivered; returns when it is on disk."""
        fault = verdict.fault
        final = Final(
            id=job.id,
            node=self._config.node,
            model=job.request.asked_model,
            created=int(time.time()),
            status="ok" if fault is None else "error",
            text=produced.text,
            thinking=produced.thinking,
            finish_reason=verdict.finish_reason,
            usage=produced.usage,
            timing=produced.timing,
            attempt=job.attempt,
            deltas=produced.deltas,
            tool_calls=produced.tool_calls,
            more=produced.members,
            fault=fault,
        )
        limit = self._config.limits.reply_bytes
        outcome = build_outcome(
            final,
            reply_bytes=min(job.request.reply_bytes or limit, limit),
            payload_bytes=self._payload_limit(job.address),
            # `last` is JSON for everybody.
            bare=job.request.text and not job.request.retain,
        )
        delivery = Delivery.PENDING if job.request.reply_qos else Delivery.NONE
        added = turn_of(job, produced.text, produced.tool_calls) if fault is None else None
        stored = await self.keep(
            lambda: self._journal.finish(job.seq, verdict.event, outcome, delivery, added)
        )
        self._live.forget(job)
        # What is made ready is no prompt: it is counted when a question uses it.
        self._count(verdict.event, produced.usage if job.request.prefix is None else _NOTHING_USED)
        if stored:
            self._post(job, outcome)
        log.info(
            "job_ended",
            job=job.seq,
            client=job.client,
            reason=verdict.finish_reason,
            code=fault.code.value if fault else "-",
            tokens=produced.usage.completion_tokens,
            total_ms=produced.timing.total_ms,
        )
        self._on_change()

    async def note(self, write: Callable[[], Awaitable[object]]) -> None:
        """Write something that the recovery at the next start can do without; a failure is logged."""
        try:
            await write()
        except StoreError as exc:
            log.error("journal_write_failed", reason=str(exc), hint=exc.hint)

    async def keep(self, write: Callable[[], Awaitable[object]]) -> bool:
        """Write until it is on disk: what cannot be stored is withheld. False: the journal knows better."""
        while True:
            try:
                await write()
            except JobError as exc:
                log.error("journal_disagrees", reason=str(exc))
                return False
            except StoreError as exc:
                log.error("outcome_withheld", reason=str(exc), hint=exc.hint)
                await asyncio.sleep(_STORE_RETRY_S)
            else:
                return True

    def _count(self, event: JobEvent, usage: Usage) -> None:
        counters = self._counters
        match event:
            case JobEvent.COMPLETED:
                counters.succeeded += 1
            case JobEvent.CANCEL_CONFIRMED:
                counters.cancelled += 1
            case JobEvent.DEADLINE_PASSED:
                counters.expired += 1
            case _:
                counters.failed += 1
        counters.tokens_generated += usage.completion_tokens
        counters.tokens_prompt += usage.prompt_tokens
        counters.tokens_cached += usage.cached_tokens
