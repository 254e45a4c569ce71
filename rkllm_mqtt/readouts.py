"""Requests for numbers instead of an answer: what their runs are given, and what their senders get.

`evaluate` weighs options by the model's logits, `embed` makes vectors of texts.

Rule: the library's own template cannot be read behind: what it makes of a prompt is not known.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.tokens import Estimate
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Rendered
from rkllm_mqtt.runtime.order import OptionOrder, ReadoutOrder
from rkllm_mqtt.runtime.run import RunEnd

LOGITS_MB_PER_TOKEN = 0.6
"""A vocabulary of 152,000 tokens (Qwen), four bytes each."""

_TOKENIZER = "Configure the model's `tokenizer` (its tokenizer.json)."


def echo_of(option: str) -> Sequence[Mapping[str, str]]:
    """Return a conversation in which the model's next message is the option, and nothing else."""
    ask = {"role": "user", "content": f"Repeat after me: {option}"}
    answer = {"role": "assistant", "content": option}
    return ask, answer, ask, answer, ask


def readout_of(
    request: ChatRequest,
    rendered: Rendered,
    render: Callable[[Sequence[Mapping[str, Any]]], Rendered],
    tokens_behind: Callable[[str, str], tuple[int, ...] | None],
) -> ReadoutOrder:
    """Return what the run of an `evaluate` request reads.

    Args:
        request: With its options.
        rendered: Its prompt.
        render: Makes a prompt of messages.
        tokens_behind: The tokens of an option behind a prompt; None where the tokenizer is not known.

    Raises:
        RenderError: `unsupported`: the option would not begin the answer.
    """
    if rendered.opens_thinking:
        hint = "Ask a model that can answer without thinking."
        raise RenderError("this model thinks before it answers", hint, "unsupported")
    options = []
    for text in request.options:
        ids = tokens_behind(rendered.text, text)
        if ids is None and not rendered.opens_turn:
            what = "a raw template has no conversation in which the model could repeat an option"
            raise RenderError(what, _TOKENIZER, "unsupported")
        options.append(OptionOrder(text, ids, None if ids is not None else render(echo_of(text)).text))
    return ReadoutOrder(options=tuple(options))


def embedding_of(request: ChatRequest) -> ReadoutOrder:
    """Return what the run of an `embed` request reads."""
    texts = tuple(str(message["content"]) for message in request.messages)
    return ReadoutOrder(texts=texts, pooling=request.pooling)


def check_size(tokens: Estimate, limit_mb: float) -> None:
    """Refuse a prompt whose logits take too much memory.

    Raises:
        RenderError: `too_large`.
    """
    size_mb = tokens.tokens * LOGITS_MB_PER_TOKEN
    if size_mb > limit_mb:
        raise RenderError(
            f"the logits of about {tokens.tokens} tokens take {size_mb:.0f} MB, the limit is {limit_mb:g}",
            "Shorten the prompt, or raise `limits.logits_max_mb`.",
            "too_large",
        )


def members_of(request: ChatRequest, end: RunEnd) -> Mapping[str, Any]:
    """Return the members that a final has for these tasks only."""
    if request.task == "evaluate":
        pairs = zip(request.options, end.scores, strict=True)
        return {
            "evaluation": [
                {"option": option, "probability": round(share, 9), "logprob": round(log, 6)}
                for option, (log, share) in pairs
            ]
        }
    data = enumerate(end.vectors)
    return {"data": [{"object": "embedding", "index": i, "embedding": list(vector)} for i, vector in data]}


def likeliest(request: ChatRequest, end: RunEnd) -> str:
    """Return the option that the model would rather choose; of equal ones the first."""
    if not end.scores:
        return ""
    shares = [share for _, share in end.scores]
    return request.options[shares.index(max(shares))]
