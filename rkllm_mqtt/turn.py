"""A job's stay in the slot: what its run was, in the words of verdicts, usage and timing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from rkllm_mqtt.answer import Answer
from rkllm_mqtt.core.answers import Timing, Usage
from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.core.habits import Habits
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.core.verdict import RunFacts
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.render.renderer import Rendered
from rkllm_mqtt.runtime.run import EndReason, Run, RunEnd

_HEADER_TOKENS = 8
"""A shared beginning this short is a template's header, which says nothing about a cached conversation."""


@dataclass(eq=False, slots=True)
class Turn:
    """A job in the slot, staged or running."""

    job: Job
    run: Run
    answer: Answer
    rendered: Rendered
    cached_chars: int
    """Characters of the prompt that the prompt before it began with too."""
    expired: bool = False
    """Its deadline has passed in the slot."""
    end: RunEnd | None = None
    """How the run ended; None before, and when the worker was lost."""

    @property
    def staged(self) -> bool:
        """Return whether the run has not begun."""
        return self.run.started_at is None

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
            stopping=stopping() or (lost is not None and lost.deliberate),
        )

    def timing(self, since_accepted_s: float) -> Timing:
        """Return the times of this job; `since_accepted_s` is now less its acceptance, seconds."""
        now = asyncio.get_running_loop().time()
        started = self.run.started_at if self.run.started_at is not None else now
        first = self.answer.first_token_at
        return Timing(
            queue_ms=max(0.0, (since_accepted_s - (now - started)) * 1000),
            ttft_ms=None if first is None else max(0.0, (since_accepted_s - (now - first)) * 1000),
            prefill_ms=self.end.prefill_ms if self.end else None,
            generate_ms=self.end.generate_ms if self.end else None,
            total_ms=since_accepted_s * 1000,
            tokens_per_s=self.rate(),
        )

    def usage(self, pace: Pace) -> Usage:
        """Return the tokens of this job; those of the prompt are the runtime's where it says them."""
        if self.staged:
            return Usage()
        tokens = self.end.tokens if self.end else self.answer.tokens
        total, cached = pace.tokens_of(len(self.rendered.text)), pace.tokens_of(self.cached_chars)
        computed = self.end.computed_tokens if self.end else None
        if computed is None or not tokens:
            return Usage(total, tokens, min(cached, total), cached_estimated=True)
        if cached < max(_HEADER_TOKENS, computed // 20):
            return Usage(computed, tokens, 0)
        cached = min(cached, max(0, total - computed))
        return Usage(computed + cached, tokens, cached, cached_estimated=cached > 0)

    def teach(self, pace: Pace, ttft_ms: float | None) -> None:
        """Let a model's pace learn from this run."""
        if self.end is None or not self.end.tokens:
            return
        chars = len(self.rendered.text)
        if self.end.computed_tokens is not None and self.end.prefill_ms is not None:
            cold = self.cached_chars * 20 < chars
            pace.learn_prefill(chars, self.end.computed_tokens, self.end.prefill_ms, cold=cold)
            if cold:
                pace.tokenizer.learn(self.rendered.text, self.end.computed_tokens)
        pace.learn_run(self.end.run_ms / 1000, ttft_ms, self.rate())

    def measure(self, end: RunEnd, pace: Pace, habits: Habits) -> None:
        """Let the rates of the model, and the habits of the client, learn from a run that has ended."""
        if not end.tokens or end.prefill_ms is None or end.generate_ms is None:
            return
        total = pace.tokens_of(len(self.rendered.text))
        cached = min(total, pace.tokens_of(self.cached_chars))
        computed = end.computed_tokens if end.computed_tokens is not None else total - cached
        cached = max(0, total - computed) if cached else 0
        pace.rates.learn_first_token(cached, computed, end.prefill_ms)
        # The step that finds the end of the answer makes no token; a limit needs none.
        steps = end.tokens - (end.reason is not EndReason.STOP)
        pace.rates.learn_steps(cached + computed, steps, end.generate_ms)
        pace.rates.runs += 1
        if end.reason in (EndReason.STOP, EndReason.LENGTH):
            uncached = computed / (cached + computed) if computed else 0.0
            habits.learn(self.job.client, self.job.request.max_tokens, end.tokens, uncached)

    def rate(self) -> float | None:
        """Return the tokens per second after the first; None where there is nothing to divide."""
        end = self.end
        return (
            (end.tokens - 1) * 1000 / end.generate_ms if end and end.generate_ms and end.tokens > 1 else None
        )
