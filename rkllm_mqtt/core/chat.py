"""A request with every default applied, and where its answers go; both survive a restart as JSON."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import asdict

from rkllm_mqtt.core.topics import Mailbox

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)
"""Sampling parameters, by the names of the protocol."""


class PrefixWish(Struct, frozen=True):
    """What a request asks of the beginning of prompts, instead of an answer."""

    verb: Literal["register", "unregister", "warm"]
    name: str | None = None
    """Of a registered prefix; None: the messages of the request are the prefix."""
    hold_s: float = 0.0
    """How long the slot is to be kept free for the question when the prefix is warm, seconds."""
    ttl_s: float = 0.0
    """Of a registration: how long it lives beyond its last use, seconds."""


class ChatRequest(Struct, frozen=True, kw_only=True):
    """What the slot is to do."""

    messages: tuple[Mapping[str, Any], ...]
    """The conversation in the shape of the OpenAI API; of `embed`, a message for each text. Empty only of a
    wish that names its prefix."""
    model: str
    """Which is loaded for it."""
    max_tokens: int
    task: Literal["chat", "evaluate", "embed"] = "chat"
    """Make an answer, weigh options, or make vectors of texts."""
    options: tuple[str, ...] = ()
    """To be weighed, all different."""
    pooling: Literal["mean", "last", "cls"] = "mean"
    """How the vectors of a text's tokens become one."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Only what the request, its preset or its model says, by the names in SAMPLING."""
    lora: str | None = None
    """The adapter of the model that computes it."""
    stop: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    """In the shape of the OpenAI API, each with a name of its own."""
    tool_choice: Literal["auto", "none", "required"] = "auto"
    tool_name: str | None = None
    """The one tool that must be called; `tool_choice` is `required` then."""
    response_format: Mapping[str, Any] | None = None
    """The asked shape: `type` is json_object, or json_schema with the `schema`."""
    conversation: str | None = None
    """The client's conversation that this is a turn of; its history comes before the messages."""
    thinking: bool = False
    stream: bool = False
    text: bool = False
    """Bare text in, bare text out, no events."""
    retain: bool = False
    """Keep the final in `last` too."""
    reply_qos: int = 1
    reply_bytes: int | None = None
    prefix: PrefixWish | None = None
    """It asks for no answer: the messages are a beginning of prompts, which may then be empty."""

    @property
    def asked_model(self) -> str:
        """Return the model as senders name it: `<model>` or `<model>:<adapter>`."""
        return self.model if self.lora is None else f"{self.model}:{self.lora}"

    def to_json(self) -> str:
        """Return the canonical JSON of this request."""
        values = asdict(self)
        if self.prefix is not None:
            values["prefix"] = asdict(self.prefix)
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ChatRequest":
        """Return the request that `to_json` wrote."""
        values = json.loads(text)
        if values.get("prefix") is not None:
            values["prefix"] = PrefixWish(**values["prefix"])
        for name in ("messages", "options", "stop", "tools"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


class Address(Struct, frozen=True):
    """Where the answers of one request go, and what is echoed on each."""

    mailbox: Mailbox
    topic_id: str | None
    """The id in the request's topic, which every answer topic then ends with."""
    response_topic: str | None = None
    """Replaces the reply topic; already allowed by `Topics.may_answer_on`."""
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()

    @property
    def reply(self) -> str:
        """Return the topic of the one outcome."""
        return self.response_topic or self.mailbox.topic("reply", self.topic_id)

    @property
    def delta(self) -> str:
        """Return the topic of partial tokens."""
        return (
            f"{self.response_topic}/delta"
            if self.response_topic
            else self.mailbox.topic("delta", self.topic_id)
        )

    @property
    def event(self) -> str:
        """Return the topic of events."""
        return (
            f"{self.response_topic}/event"
            if self.response_topic
            else self.mailbox.topic("event", self.topic_id)
        )

    @property
    def last(self) -> str:
        """Return the client's retained topic."""
        return self.mailbox.topic("last")

    def to_json(self) -> str:
        """Return the canonical JSON of this address; the mailbox is in the job's own columns."""
        values: dict[str, Any] = {"base": self.mailbox.base}
        if self.topic_id:
            values["id"] = self.topic_id
        if self.response_topic:
            values["response_topic"] = self.response_topic
        if self.correlation_data is not None:
            values["correlation"] = base64.b64encode(self.correlation_data).decode("ascii")
        if self.user_properties:
            values["user_properties"] = self.user_properties
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, target: str, client: str) -> "Address":
        """Return the address that `to_json` wrote for a job of this target and client."""
        values = json.loads(text)
        correlation = values.get("correlation")
        return cls(
            Mailbox(values["base"], target, client),
            values.get("id"),
            values.get("response_topic"),
            base64.b64decode(correlation) if correlation is not None else None,
            tuple((name, value) for name, value in values.get("user_properties", ())),
        )
