"""The JSON of a request, checked field by field; every field is hostile until it has passed here."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, from_json

from rkllm_mqtt.core.chat import SAMPLING
from rkllm_mqtt.core.errors import Code, RequestError
from rkllm_mqtt.core.topics import is_id
from rkllm_mqtt.intake.tools import MAX_TOOLS, Tool

_MAX_MESSAGES = 1000
_MAX_STOPS = 16
_MAX_NAMES = 32
_MAX_OPTIONS = 64
_MAX_TEXTS = 64

Name = Annotated[str, Field(min_length=1, max_length=64)]
Option = Annotated[str, Field(min_length=1, max_length=64)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]


_OF_ANSWERS = (
    *("stream", "preset", "max_tokens", *SAMPLING, "stop"),
    *("tools", "tool_choice", "response_format", "conversation_id", "thinking"),
)
_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "chat": ("options", "input", "pooling"),
    "evaluate": ("input", "pooling", *_OF_ANSWERS),
    "embed": ("options", "prompt", "messages", *_OF_ANSWERS),
}
"""Fields without effect, by task."""


class _Wire(BaseModel):
    # strict: "5" is no number and 1 is no boolean; what an API client sends by mistake must not run.
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


class TextPart(_Wire):
    """A part of a message's content; only text is understood."""

    type: str
    text: str | None = None


class Message(_Wire):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class WireRequest(_Wire):
    """A request as it was sent; None is absent."""

    prompt: str | None = None
    messages: Annotated[list[Message], Field(max_length=_MAX_MESSAGES)] | None = None
    task: Literal["chat", "evaluate", "embed"] | None = None
    options: Annotated[list[Option], Field(min_length=2, max_length=_MAX_OPTIONS)] | None = None
    input: str | Annotated[list[str], Field(min_length=1, max_length=_MAX_TEXTS)] | None = None
    pooling: Literal["mean", "last", "cls"] | None = None
    id: str | None = None
    stream: bool | None = None
    model: Name | None = None
    preset: Name | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=100_000)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=5)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Field(gt=0, le=100)] | None = None
    mirostat_eta: Annotated[float, Field(gt=0, le=10)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=_MAX_STOPS)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    conversation_id: str | None = None
    thinking: bool | None = None
    priority: Literal["interactive", "normal", "background"] | None = None
    ttl_s: Annotated[float, Field(gt=0)] | None = None
    reply_qos: Annotated[int, Field(ge=0, le=1)] | None = None
    retain: bool | None = None
    reply_bytes: Annotated[int, Field(ge=16)] | None = None
    # Not `register`: that is a method of every class whose metaclass is ABCMeta.
    register_as: Annotated[str | None, Field(alias="register")] = None
    unregister: str | None = None
    warm: str | bool | None = None
    hold_s: Annotated[float, Field(ge=0, le=30)] | None = None

    def sent(self, names: Iterable[str]) -> list[str]:
        """Return those of the fields that were sent, and not as null."""
        given = self.model_fields_set
        return [name for name in names if name in given and getattr(self, name) is not None]

    @property
    def without_effect(self) -> list[str]:
        """Return the fields that change nothing, unknown ones first: at most 32, each at most 64 long."""
        names = dict.fromkeys(self.model_extra or ())
        for message in self.messages or ():
            names.update(dict.fromkeys(f"messages.{name}" for name in message.model_extra or ()))
            for part in message.content if isinstance(message.content, list) else ():
                names.update(dict.fromkeys(f"messages.content.{name}" for name in part.model_extra or ()))
        if self.hold_s is not None and not self.warm:
            names["hold_s"] = None
        # `parse_wire` refuses them unless they are empty; a choice without tools chooses nothing.
        if self.response_format is not None and not self.response_format:
            names["response_format"] = None
        if not self.tools:
            names.update(dict.fromkeys(self.sent(("tools", "tool_choice"))))
        without = _WITHOUT_EFFECT[self.task or "chat"]
        names.update(dict.fromkeys(self.sent(without)))
        return [name[:64] for name in islice(names, _MAX_NAMES)]


def parse_wire(payload: bytes) -> WireRequest:
    """Return the request of a JSON payload.

    Raises:
        RequestError: `invalid_json` when it does not parse, else `invalid_request` or `unsupported`.
    """
    try:
        members = from_json(payload, allow_inf_nan=False)
    except ValueError as exc:
        raise RequestError(Code.INVALID_JSON, f"not valid JSON: {exc}", "Send one JSON object.") from None
    if not isinstance(members, dict):
        raise RequestError(Code.INVALID_JSON, "the payload is not a JSON object", "Send one JSON object.")
    try:
        wire = WireRequest.model_validate(members)
    except ValidationError as exc:
        raise _explain(exc) from None
    if wire.id is not None and not is_id(wire.id):
        raise RequestError(
            Code.INVALID_REQUEST,
            "id: not a valid id",
            "Use 1 to 64 of A-Z a-z 0-9 . _ : -, not `event` or `delta`.",
        )
    if wire.conversation_id and not is_id(wire.conversation_id):
        raise RequestError(
            Code.INVALID_REQUEST, "conversation_id: not a valid id", "Use 1 to 64 of A-Z a-z 0-9 . _ : -."
        )
    return wire


def conversation(wire: WireRequest) -> tuple[dict[str, Any], ...]:
    """Return the messages of a request; a prompt is one user message.

    Raises:
        RequestError: There is no question in it, or content that is not text.
    """
    if (wire.prompt is None) == (wire.messages is None):
        both = wire.prompt is not None
        message = (
            "prompt and messages are both given" if both else "there is no prompt and there are no messages"
        )
        raise RequestError(Code.INVALID_REQUEST, message, "Give either `prompt` or `messages`.")
    if wire.prompt is not None:
        return (user_message(wire.prompt),)
    messages = plain_messages(wire.messages or ())
    if not any(message["role"] != "system" for message in messages):
        raise RequestError(Code.INVALID_REQUEST, "messages: there is no user message", "Add one.")
    return messages


def plain_messages(messages: Sequence[Message]) -> tuple[dict[str, Any], ...]:
    """Return messages as they are kept and rendered.

    Raises:
        RequestError: One holds content that is not text.
    """
    return tuple(_plain(message) for message in messages)


def user_message(text: str) -> dict[str, Any]:
    """Return the message of a user.

    Raises:
        RequestError: The text is blank or cannot be given to the library.
    """
    if not text.strip():
        raise RequestError(Code.INVALID_REQUEST, "the prompt is empty", "Send some text.")
    return {"role": "user", "content": clean(text)}


def _plain(message: Message) -> dict[str, Any]:
    if isinstance(message.content, list):
        parts = [_part(part) for part in message.content]
        content: str | None = "".join(parts)
    else:
        content = message.content
    plain: dict[str, Any] = {"role": message.role, "content": None if content is None else clean(content)}
    if message.role == "user" and not (content or "").strip():
        raise RequestError(Code.INVALID_REQUEST, "messages: a user message is empty", "Send some text.")
    for name in ("name", "tool_calls", "tool_call_id"):
        value = getattr(message, name)
        if value is not None:
            plain[name] = value
    return plain


def _part(part: TextPart) -> str:
    if part.type != "text" or part.text is None:
        raise RequestError(
            Code.UNSUPPORTED,
            f"messages: content of type {part.type[:32]!r} is not supported",
            "Send text only.",
        )
    return part.text


def clean(text: str) -> str:
    """Return a text that the library can be given.

    Raises:
        RequestError: It cannot.
    """
    # The library takes C strings: everything behind a NUL would silently be cut off.
    if "\0" in text:
        raise RequestError(Code.INVALID_REQUEST, "the text holds a NUL character", "Remove it.")
    return text


def _explain(error: ValidationError) -> RequestError:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    # Of the branches of a union the one that got furthest is what the sender meant.
    field = problems[0]["loc"][:1]
    first = max((problem for problem in problems if problem["loc"][:1] == field), key=_depth)
    where = ".".join(str(part)[:64] for part in first["loc"] if not _is_branch(part))
    return RequestError(
        Code.INVALID_REQUEST,
        f"{where}: {first['msg'][:200]}",
        "`rkllm/<node>/info` and the README show the fields.",
    )


def _depth(problem: ErrorDetails) -> int:
    return len([part for part in problem["loc"] if not _is_branch(part)])


def _is_branch(part: int | str) -> bool:
    """Return whether a part of an error's place names a branch of a union rather than a field."""
    return isinstance(part, str) and (part in ("str", "constrained-str") or "[" in part)
