"""Estimate the slot time of a job: its prompt's length, what of it is cached, how long its answer will be.

Pure. Estimates order work and fill `eta_s`; nothing is refused because of one but what cannot be in time.
"""

from collections.abc import Mapping

from msgspec import Struct, field

from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.habits import Habits
from rkllm_mqtt.core.pace import Pace, common_prefix
from rkllm_mqtt.core.waiting import Job

_FRAME_CHARS = 30
"""Of the template, for each message."""
_FRAME_TOKENS = 6
_REST = 0.3
"""An answer that is longer than expected goes on for about this share of what it has."""
_HOPE = 0.5
"""The optimistic estimate: half of what is expected."""


class Estimates(Struct):
    """What is known of models and clients, as slot time."""

    paces: Mapping[str, Pace]
    """By model."""
    habits: Habits = field(default_factory=Habits)

    def slot_s(self, job: Job) -> float:
        """Return the slot time that a job still needs, seconds."""
        request = job.request
        pace = self.paces[request.model]
        tokens, uncached = self.habits.expected(job.client, request.max_tokens)
        prompt = self.prompt_tokens(job) + job.made
        return pace.rates.slot_s(
            prompt, prompt * (1 - uncached), rest_of(tokens, job.made, request.max_tokens)
        )

    def left_s(self, job: Job, made: int, context: float) -> float:
        """Return the slot time left of a run that has made `made` tokens of its answer, seconds."""
        tokens, _ = self.habits.expected(job.client, job.request.max_tokens)
        rest = rest_of(tokens, made, job.request.max_tokens)
        return self.paces[job.request.model].rates.answer_s(context + made, rest)

    def prompt_tokens(self, job: Job) -> int:
        """Return about how many tokens the prompt of a job has; read from its request once."""
        if not job.prompt_tokens:
            tokenizer, messages = self.paces[job.request.model].tokenizer, job.request.messages
            texts = [str(message.get("content") or "") for message in messages]
            text = "".join([*texts, *map(str, job.request.tools)])
            job.prompt_tokens = tokenizer.estimate(text).tokens + _FRAME_TOKENS * len(messages)
        return job.prompt_tokens

    def saving_s(self, job: Job, in_kv: ChatRequest) -> float:
        """Return what a job saves because another one's prompt is in the KV cache, seconds."""
        request = job.request
        if (request.model, request.lora) != (in_kv.model, in_kv.lora):
            return 0.0
        shared = shared_chars(request, in_kv)
        if not shared:
            return 0.0
        prompt, rates = self.prompt_tokens(job), self.paces[request.model].rates
        cached = round(prompt * min(1.0, shared / prompt_chars(request)))
        return rates.first_token_s(prompt) - rates.first_token_s(max(0, prompt - cached), cached)

    def is_known(self, model: str) -> bool:
        """Return whether the speed of a model is known well enough to tell a sender."""
        rates = self.paces[model].rates
        return rates.runs > 0 or rates.seed.known

    def hope_s(self, begins_in_s: float, job: Job) -> float | None:
        """Return when a job may have its first token at the earliest; None while nothing is learned."""
        rates = self.paces[job.request.model].rates
        if rates.runs < 3:
            return None
        return _HOPE * (begins_in_s + rates.first_token_s(0))


def rest_of(expected: float, made: int, most: int) -> float:
    """Return how many tokens an answer will still have when it has `made` so many."""
    return max(0.0, min(most - made, max(expected - made, made * _REST)))


def prompt_chars(request: ChatRequest) -> int:
    """Return about how many characters the prompt of a request will have."""
    chars = 0
    for message in request.messages:
        content = message.get("content")
        chars += _FRAME_CHARS + (len(content) if isinstance(content, str) else len(str(content or "")))
    return chars


def shared_chars(a: ChatRequest, b: ChatRequest) -> int:
    """Return about how many characters two prompts have in common at their beginning."""
    chars = 0
    for one, other in zip(a.messages, b.messages, strict=False):
        if one == other:
            chars += _FRAME_CHARS + len(str(one.get("content") or ""))
            continue
        text, other_text = one.get("content"), other.get("content")
        if one.get("role") == other.get("role") and isinstance(text, str) and isinstance(other_text, str):
            chars += common_prefix(text, other_text)
        break
    return chars
