"""A job's stay in the slot: what its run was, in the words of verdicts, usage and timing."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from rkllm_mqtt.answer import Answer
from rkllm_mqtt.core.answers import Timing, Usage
from rkllm_mqtt.core.carried import Carried
from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.core.habits import Habits
from rkllm_mqtt.core.kvcache import NOTHING, UNKNOWN, KvState, Match
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.core.tokens import Estimate
from rkllm_mqtt.core.verdict import RunFacts
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.render.renderer import Rendered
from rkllm_mqtt.runtime.run import EndReason, Run, RunEnd

_WILDEST = 3
"""An estimate of tokens is not wrong by more than this factor."""
_HEADER_TOKENS = 8
"""A shared beginning this short is a template's header, which says nothing about a cached conversation."""

_DOUBT = 1.5
"""A prompt has not so many times the tokens that were estimated: then its beginning was computed again."""


class Turn(Struct, eq=False):
    """A job in the slot, staged or running."""

    job: Job
    run: Run
    answer: Answer
    rendered: Rendered
    tokens: Estimate
    """Of the prompt; exact where the model came with its tokenizer."""
    carried: Carried | None = None
    """The answer so far when it came into the slot."""
    preempting: bool = False
    """It was aborted for another job, since it cannot go on later."""
    expired: bool = False
    """Its deadline has passed in the slot."""
    match: Match = NOTHING
    """What of the prompt is in the KV cache."""
    before: KvState = UNKNOWN
    """What the KV cache held when the run began."""
    end: RunEnd | None = None
    """How the run ended; None before, and when the worker was lost."""

    @property
    def cached_chars(self) -> int:
        """Return how many characters of the prompt are most likely not computed."""
        return self.match.likely

    @property
    def restore_s(self) -> float:
        """Return what the load of a prompt-cache file took, seconds."""
        return self.run.restored.ms / 1000 if self.run.restored else 0.0

    @property
    def staged(self) -> bool:
        """Return whether the run has not begun."""
        return self.run.started_at is None

    @property
    def computing(self) -> bool:
        """Return whether the library works on it."""
        return self.run.started_at is not None and not self.run.ended.done()

    @property
    def can_continue(self) -> bool:
        """Return whether the answer can go on in another run: only where the prompt is wholly ours."""
        return self.rendered.mode != "runtime" and self.run.order.readout is None

    async def finished(self, stopping: Callable[[], bool]) -> RunFacts:
        """Wait for the end of the run and return what a verdict needs.

        Args:
            stopping: Whether the daemon ends and has aborted the run for it; asked when the run has ended.
        """
        run, job = self.run, self.job
        lost = None
        try:
            self.end = await run.ended
        except SlotLost as exc:
            lost = exc
        return RunFacts(
            reason=self.end.reason.value if self.end else "lost",
            message=self.end.message if self.end else str(lost),
            hint=self.end.hint if self.end else "",
            began=not run.started.cancelled(),
            cancelled=job.cancel_requested,
            expired=self.expired,
            timed_out=run.timed_out,
            stalled=run.stalled,
            preempting=self.preempting,
            stopping=stopping() or (lost is not None and lost.deliberate),
            prime=run.order.prime,
        )

    def timing(self, since_accepted_s: float) -> Timing:
        """Return the times of this job, all runs together; `since_accepted_s`: now less its acceptance."""
        now, carried, end = asyncio.get_running_loop().time(), self.carried, self.end
        started = self.run.started_at if self.run.started_at is not None else now
        first = self.answer.first_token_at
        queue_ms = max(0.0, (since_accepted_s - (now - started)) * 1000)
        ttft_ms = None if first is None else max(0.0, (since_accepted_s - (now - first)) * 1000)
        if carried is not None:
            queue_ms = carried.queue_ms
            ttft_ms = ttft_ms if carried.ttft_ms is None else carried.ttft_ms
        return Timing(
            queue_ms=queue_ms,
            ttft_ms=ttft_ms,
            prefill_ms=_sum(self._prefill_ms(), carried.prefill_ms if carried else None),
            generate_ms=_sum(end.generate_ms if end else None, carried.generate_ms if carried else None),
            total_ms=since_accepted_s * 1000,
            tokens_per_s=self.rate(),
        )

    def readiness(self) -> Mapping[str, Any]:
        """Return what became of a wish for a prefix."""
        wish = self.job.request.prefix
        whole = self.end is not None and self.end.reason is EndReason.STOP
        return {
            "name": wish.name if wish else None,
            "state": "warm" if whole else "partial",
            "hold_s": round(self.job.held_s, 3),
        }

    def _prefill_ms(self) -> float | None:
        """Return how long the prompt was computed in this run."""
        if self.end is None or not self.run.order.prime:
            return self.end.prefill_ms if self.end else None
        return max(0.0, self.end.run_ms - self.end.save_ms)

    def carry(self, pace: Pace, since_accepted_s: float) -> Carried:
        """Return what the job takes along when its run was interrupted at a token."""
        answer, usage, timing = self.answer, self.usage(pace), self.timing(since_accepted_s)
        return Carried(
            raw=(*(self.carried.raw if self.carried else ()), *self.run.raw),
            tokens=self.run.tokens,
            text=answer.text,
            thinking=answer.thinking,
            tool_calls=tuple(answer.tool_calls),
            deltas=answer.deltas,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            cached_estimated=usage.cached_estimated,
            queue_ms=timing.queue_ms,
            ttft_ms=timing.ttft_ms,
            prefill_ms=timing.prefill_ms,
            generate_ms=timing.generate_ms,
        )

    def usage(self, pace: Pace) -> Usage:
        """Return the tokens of this job; those of the prompt are the runtime's where it says them."""
        if self.staged:
            return Usage()
        if self.run.order.readout is not None:
            texts = self.run.order.readout.texts or (self.rendered.text,)
            return Usage(sum(pace.tokens_of(len(text)) for text in texts), cached_estimated=True)
        tokens = self.end.tokens if self.end else self.answer.tokens
        carried = self.carried
        if carried is not None and carried.tokens:  # later runs compute again what the first one did
            return Usage(carried.prompt_tokens, tokens, carried.cached_tokens, carried.cached_estimated)
        text, is_exact = self.rendered.text, self.tokens.low == self.tokens.high
        total = self.tokens.tokens if is_exact else pace.tokenizer.estimate(text).tokens
        cached = self._cached_of(total, len(text))
        computed = self.end.computed_tokens if self.end else None
        if computed is None or not (tokens or self.run.order.prime):
            return Usage(max(total, cached), tokens, cached, cached_estimated=True)
        if cached < max(_HEADER_TOKENS, computed // 20):
            if computed * _WILDEST >= total:
                return Usage(computed, tokens, 0)
            # The library had in its cache what we did not count on.
            return Usage(total, tokens, total - computed, cached_estimated=not is_exact)
        if is_exact:
            return Usage(total, tokens, max(0, total - computed))
        if self.end is not None:
            cached, computed = self.reused(self.end, pace)
        return Usage(computed + cached, tokens, cached, cached_estimated=cached > 0)

    def teach(self, pace: Pace, ttft_ms: float | None) -> None:
        """Let a model's pace learn from this run."""
        if self.end is None or not self.end.tokens or self.carried is not None:
            return
        chars = len(self.rendered.text)
        if self.end.computed_tokens is not None and self.end.prefill_ms is not None:
            cold = self.cached_chars * 20 < chars
            pace.learn_prefill(chars, self.end.computed_tokens, self.end.prefill_ms, cold=cold)
            if cold:
                pace.tokenizer.learn(self.rendered.text, self.end.computed_tokens)
        pace.learn_run(self.end.run_ms / 1000, ttft_ms, self.rate())

    def reused(self, end: RunEnd, pace: Pace) -> tuple[int, int]:
        """Return how many tokens of the prompt were not computed, and how many were."""
        prompt = self.run.order.prompt
        total = pace.tokenizer.estimate(prompt).tokens
        cached = self._cached_of(total, len(prompt))
        computed = end.computed_tokens if end.computed_tokens is not None else max(0, total - cached)
        if self.match.tokens is not None:
            return min(cached, max(0, round(_DOUBT * total) - computed)), computed
        return max(0, total - computed) if cached else 0, computed

    def _cached_of(self, total: int, chars: int) -> int:
        """Return how many tokens of a prompt are most likely cached: counted before, or by its characters."""
        if self.match.tokens is not None:
            return self.match.tokens
        return round(total * min(1.0, self.cached_chars / max(1, chars)))

    def measure(self, end: RunEnd, pace: Pace, habits: Habits) -> tuple[int, int]:
        """Let the rates of the model, and the habits of the client, learn from a run that has ended.

        Return how many tokens of the prompt were not computed, and how many were.
        """
        made = end.tokens - self.run.order.carried_tokens
        if end.columns > 1:
            total = pace.tokenizer.estimate(self.run.order.prompt).tokens
            self._measure_column(end, pace, total, made)
            return 0, total
        reused = cached, computed = self.reused(end, pace)
        context, first_ms = cached + computed, end.prefill_ms
        uncached = min(1.0, computed / context) if context else 0.0
        for tokens, ms in end.chunks if end.reuse is not False else ():
            pace.rates.learn_first_token(cached, tokens, ms)
            cached, computed = cached + tokens, max(0, computed - tokens)
            first_ms = None if first_ms is None else max(0.0, first_ms - ms)
        if made <= 0 or first_ms is None or end.generate_ms is None:
            return reused
        if end.reuse is not False:
            pace.rates.learn_first_token(cached, computed, first_ms)
        # The step that finds the end of the answer makes no token; a limit needs none.
        steps = made - (end.reason is not EndReason.STOP)
        pace.rates.learn_steps(context, steps, end.generate_ms)
        pace.rates.runs += 1
        if end.reason in (EndReason.STOP, EndReason.LENGTH):
            habits.learn(self.job.client, self.job.request.max_tokens, end.tokens, uncached)
        return reused

    def _measure_column(self, end: RunEnd, pace: Pace, total: int, made: int) -> None:
        """Take a column's share of the slot; what was computed is told of all columns together."""
        if made > 0 and end.prefill_ms is not None and end.generate_ms is not None:
            pace.rates.learn_first_token(0, total, end.prefill_ms / end.columns)
            pace.rates.learn_steps(total, made - 1, end.generate_ms / end.columns)
            pace.rates.runs += 1

    def rate(self) -> float | None:
        """Return the tokens per second after the first; None where there is nothing to divide."""
        end = self.end
        generate_ms = _sum(
            end.generate_ms if end else None, self.carried.generate_ms if self.carried else None
        )
        return (end.tokens - 1) * 1000 / generate_ms if end and generate_ms and end.tokens > 1 else None


def _sum(*values: float | None) -> float | None:
    """Return the sum of what is there; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
