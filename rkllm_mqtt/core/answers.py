"""Build every payload that a sender reads: events, deltas, finals and errors of protocol 1.0."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from rkllm_mqtt.core.errors import Fault

_WHOLE_UNITS = re.compile(r"(?:[^\\]++|\\u[0-9a-f]{4}|\\[^u])*+")
"""The longest beginning of a JSON string's inside that ends with no half escape."""

# The C encoder of one string: deltas are built per token, and a whole json.dumps costs five times as much.
_encode_text = json.encoder.encode_basestring


def encode(payload: Mapping[str, Any]) -> bytes:
    """Return compact UTF-8 JSON; key order is kept."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def error_members(fault: Fault) -> dict[str, Any]:
    """Return the `error` object of an answer."""
    return {
        "code": fault.code.value,
        "message": fault.message,
        "hint": fault.hint,
        "retryable": fault.retryable,
        "retry_after_s": fault.retry_after_s,
    }


def delta(request_id: str, attempt: int, seq: int, kind: str, text: str) -> bytes:
    """Return one delta; `kind` is text or thinking."""
    return (f'{{"id":"{request_id}","attempt":{attempt},"seq":{seq},"{kind}":{_encode_text(text)}}}').encode()


class Usage(Struct, frozen=True):
    """Tokens of one answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cached_estimated: bool = False
    """The runtime did not say; the numbers of the prompt are then our estimate."""


class Timing(Struct, frozen=True):
    """Milliseconds of one answer; None is not known (nothing ran)."""

    queue_ms: float = 0
    ttft_ms: float | None = None
    """From acceptance to the first token."""
    prefill_ms: float | None = None
    """From the entry into the run to the first token."""
    generate_ms: float | None = None
    total_ms: float = 0
    """From acceptance to the final."""
    tokens_per_s: float | None = None


class Final(Struct, frozen=True):
    """The one outcome of a request."""

    id: str | None
    """None only where a request that was rejected had none that could be read."""
    node: str
    model: str
    created: int
    """Unix seconds."""
    status: str
    """`ok`, or `error` together with `fault`."""
    text: str
    thinking: str
    finish_reason: str
    usage: Usage
    timing: Timing
    attempt: int
    deltas: int
    """Valid deltas; 0 when none were published."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """In the shape of the OpenAI API."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Members of what is no chat: `evaluation`, `data`, or `prefix`."""
    fault: Fault | None = None
    truncated: bool = False

    def members(self) -> dict[str, Any]:
        """Return the JSON members in the order of the protocol."""
        usage = asdict(self.usage)
        if not self.usage.cached_estimated:
            del usage["cached_estimated"]
        members: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "node": self.node,
            "model": self.model,
            "status": self.status,
            "text": self.text,
            "thinking": self.thinking,
            "tool_calls": list(self.tool_calls),
            "finish_reason": self.finish_reason,
            "usage": usage,
            "timing": {
                key: None if value is None else round(value, 3) for key, value in asdict(self.timing).items()
            },
            "attempt": self.attempt,
            "deltas": self.deltas,
            "truncated": self.truncated,
            **self.more,
        }
        if self.fault is not None:
            members["error"] = error_members(self.fault)
        return members


def cut_text(text: str, limit_bytes: int) -> str:
    """Return the longest beginning of `text` of at most `limit_bytes` bytes that ends between characters."""
    raw = text.encode("utf-8")
    if len(raw) <= limit_bytes:
        return text
    return raw[:limit_bytes].decode("utf-8", "ignore")


def cut_to_json(text: str, limit_bytes: int) -> str:
    """Return the longest beginning of `text` that takes at most `limit_bytes` bytes inside a JSON string."""
    inside = _encode_text(text)[1:-1].encode("utf-8")
    if len(inside) <= limit_bytes:
        return text
    whole = _WHOLE_UNITS.match(inside[: max(0, limit_bytes)].decode("utf-8", "ignore"))
    short: str = json.loads(f'"{whole[0] if whole else ""}"')
    return short


def build_outcome(final: Final, *, reply_bytes: int, payload_bytes: int, bare: bool = False) -> bytes:
    """Return the final as it is stored: its text cut where the sender or the broker cannot take it whole.

    Args:
        final: With its whole text.
        reply_bytes: Longest text, bytes.
        payload_bytes: Longest payload, bytes. Of JSON the rest is cut from the thoughts, then from the text;
            what is left when both are empty is never cut.
        bare: It is sent as bare text: only the text has to fit.
    """
    members = final.members()
    # One less for the blank that `bare_text` may put in front.
    text = cut_text(final.text, min(reply_bytes, max(0, payload_bytes - 1)) if bare else reply_bytes)
    if len(text) < len(final.text):
        members["text"], members["truncated"] = text, True
    payload = encode(members)
    for part in () if bare else ("thinking", "text"):
        if len(payload) > payload_bytes and members[part]:
            rest = len(encode({**members, part: ""}))
            members[part] = cut_to_json(members[part], payload_bytes - rest)
            members["truncated"] = True
            payload = encode(members)
    return payload


def without_answer(outcome: bytes, fault: Fault) -> bytes:
    """Return a stored outcome as the error that goes in its place where it cannot be published."""
    members = json.loads(outcome)
    members.update(status="error", text="", thinking="", finish_reason="error", error=error_members(fault))
    return encode(members)


def bare_text(outcome: bytes) -> bytes:
    """Return a stored outcome as bare text, for senders of bare text.

    An error is `ERROR <code>: <sentence>`; an answer that looks like one gets a leading space.
    """
    members = json.loads(outcome)
    error = members.get("error")
    if error is not None:
        return f"ERROR {error['code']}: {error['message']}".encode()
    text: str = members["text"]
    return (" " + text if text.startswith("ERROR ") else text).encode("utf-8")
