"""Turn one request message into a `ChatRequest`: its format, the sender's settings, every default.

Knows nothing of queues or brokers: bytes and settings in, values or a RequestError out.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.config import ClientConfig, Config, ModelConfig
from rkllm_mqtt.config.catalogue import Catalogue
from rkllm_mqtt.core.chat import SAMPLING, ChatRequest, PrefixWish
from rkllm_mqtt.core.errors import Code, RequestError
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.topics import is_id
from rkllm_mqtt.intake.formats import format_of
from rkllm_mqtt.intake.prefixes import beginning, ineffective, prefix_wish
from rkllm_mqtt.intake.readouts import readout_request
from rkllm_mqtt.intake.tools import wish_of
from rkllm_mqtt.intake.wire import WireRequest, conversation, parse_wire, user_message

_DEFAULT_MAX_TOKENS = 512
_WARM_TTL_S = 120.0
"""A prefix that is warm so late is warm for nobody: no spoken question takes so long."""
_BLANKS = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_PRIORITIES = {priority.label: priority for priority in Priority}


class Parsed(Struct, frozen=True):
    """A request that can be queued."""

    request: ChatRequest
    id: str | None
    """From the JSON; the topic's id wins over it."""
    priority: Priority
    ttl_s: float
    ignored: tuple[str, ...]
    """Fields that have no effect, told to the sender."""


class RequestParser:
    """Applies the configuration to requests."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        self._config = config
        self._catalogue = catalogue
        self._settings = lru_cache(maxsize=config.limits.client_states)(self._find_settings)

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._config = config
        self._settings.cache_clear()

    def settings(self, client: str) -> ClientConfig:
        """Return the settings of a client: of the first entry whose name matches, else the defaults."""
        return self._settings(client)

    def is_text(self, payload: bytes, content_type: str | None, client: str) -> bool:
        """Return whether a payload is bare text; JSON otherwise, even when it does not parse."""
        if content_type is not None:
            kind = content_type.split(";")[0].strip().lower()
            if kind in ("application/json", "text/json"):
                return False
            if kind == "text/plain":
                return True
        configured = self.settings(client).format
        if configured != "auto":
            return configured == "text"
        return not payload.removeprefix(_BOM).lstrip(_BLANKS).startswith(b"{")

    def parse(
        self, payload: bytes, *, text: bool, client: str, capabilities: Mapping[str, bool] | None
    ) -> Parsed:
        """Return the request of a payload.

        Args:
            payload: Not empty.
            text: What `is_text` said.
            client: The sender.
            capabilities: Of the loaded runtime; None when it is not known yet.

        Raises:
            RequestError: With a code and a hint for the sender.
        """
        limits, settings = self._config.limits, self.settings(client)
        if len(payload) > limits.request_bytes:
            raise RequestError(
                Code.TOO_LARGE,
                f"the request has {len(payload)} bytes, the limit is {limits.request_bytes}",
                "Shorten it, or raise `limits.request_bytes`.",
            )
        wire = self._text(payload) if text else parse_wire(payload.removeprefix(_BOM))
        prefix = None if text else prefix_wish(wire, limits, self._config.policy.hold_max_s)
        if prefix is not None:
            return self._parse_prefix(wire, prefix, settings)
        model_id, model, lora = self._model(wire.model or settings.model)
        if wire.task is None or wire.task == "chat":
            request, ignored = self._chat(wire, settings, (model_id, model, lora), capabilities, text=text)
        else:
            request = readout_request(wire, settings, (model_id, model, lora), capabilities)
            ignored = []
        wanted = _PRIORITIES[wire.priority or settings.priority or "normal"]
        ttl_s = min(wire.ttl_s or limits.ttl_s, settings.ttl_s or limits.ttl_s, limits.ttl_s)
        priority = max(wanted, _PRIORITIES[settings.priority_ceiling])
        if model is not None and model.n_batch > 1:
            priority = max(priority, Priority.NORMAL)  # a batch is for throughput; nobody is to wait for it
        return Parsed(request, wire.id, priority, ttl_s, (*wire.without_effect, *ignored))

    def _chat(
        self,
        wire: WireRequest,
        settings: ClientConfig,
        wanted: tuple[str, ModelConfig | None, str | None],
        capabilities: Mapping[str, bool] | None,
        *,
        text: bool,
    ) -> tuple[ChatRequest, list[str]]:
        """Return a request for an answer, and which fields this model cannot obey."""
        limits, (model_id, model, lora) = self._config.limits, wanted
        messages = conversation(wire)
        if settings.system is not None and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": settings.system}, *messages)
        max_tokens = wire.max_tokens or min(
            model.max_tokens if model else _DEFAULT_MAX_TOKENS, limits.max_tokens
        )
        if max_tokens > limits.max_tokens:
            raise RequestError(
                Code.INVALID_REQUEST,
                f"max_tokens: {max_tokens} is above the limit of {limits.max_tokens}",
                "Ask for less, or raise `limits.max_tokens`.",
            )
        sampling, ignored = self._sampling(wire, settings, capabilities)
        wish = wish_of(wire.tools or (), wire.tool_choice)
        if wish.tools:
            _check_offers(model)
        shape = format_of(wire.response_format)
        stream = wire.stream if wire.stream is not None else bool(settings.stream)
        reply_bytes = [size for size in (wire.reply_bytes, settings.reply_bytes) if size is not None]
        request = ChatRequest(
            messages=messages,
            model=model_id,
            lora=lora,
            max_tokens=max_tokens,
            sampling=sampling,
            stop=(wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ()),
            tools=wish.tools,
            tool_choice=wish.choice,
            tool_name=wish.name,
            conversation=wire.conversation_id or None,
            thinking=bool(wire.thinking),
            response_format=shape,
            stream=stream and not text and shape is None,  # a second run would make the deltas void
            text=text,
            retain=settings.last if wire.retain is None else wire.retain,
            reply_qos=1 if wire.reply_qos is None else wire.reply_qos,
            reply_bytes=min(reply_bytes) if reply_bytes else None,
        )
        if self._cannot_think_so(wire.thinking, model, must_call=wish.choice == "required"):
            ignored.append("thinking")
        return request, ignored

    def _parse_prefix(self, wire: WireRequest, wish: PrefixWish, settings: ClientConfig) -> Parsed:
        """Return a request that asks for no answer.

        Raises:
            RequestError: Its model cannot have one, or it holds content that is not text.
        """
        limits, wished = self._config.limits, wire.priority or "interactive"
        model_id, model, lora = self._model(wire.model or settings.model)
        messages, tools = beginning(wire), wish_of(wire.tools or (), None).tools
        if messages and settings.system is not None and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": settings.system}, *messages)
        if model is not None and (model.template == "runtime" or model.n_batch > 1):
            why = "the library renders its prompts itself" if model.n_batch == 1 else "it runs batches"
            raise RequestError(
                Code.UNSUPPORTED,
                f"the prompts of model {model_id!r} have no beginning to be kept ready: {why}",
                "Use another model, or none: the prefix cache works without it where it can.",
            )
        if tools:
            _check_offers(model)
        priority = max(_PRIORITIES[wished], _PRIORITIES[settings.priority_ceiling])
        if wish.verb == "warm" and priority is not Priority.INTERACTIVE:
            wish = replace(wish, hold_s=0.0)  # nobody is kept waiting for what has no right to go first
        ttl_s = limits.ttl_s  # of a registration the field means how long it lives
        if wish.verb == "warm":
            ttl_s = min(wire.ttl_s or _WARM_TTL_S, _WARM_TTL_S, limits.ttl_s)
        request = ChatRequest(
            messages=messages,
            model=model_id,
            lora=lora,
            max_tokens=1,
            tools=tools,
            reply_qos=1 if wire.reply_qos is None else wire.reply_qos,
            prefix=wish,
        )
        ignored = dict.fromkeys((*wire.without_effect, *ineffective(wire, wish)))
        return Parsed(request, wire.id, priority, ttl_s, tuple(ignored))

    @staticmethod
    def _cannot_think_so(thinking: bool | None, model: ModelConfig | None, *, must_call: bool) -> bool:
        """Return whether the wish to think, or not to, changes nothing."""
        kind = "switch" if model is None else model.thinking
        if thinking is None:
            return False
        return kind == ("none" if thinking else "always") or (thinking and must_call and kind == "switch")

    def _text(self, payload: bytes) -> WireRequest:
        try:
            prompt = payload.removeprefix(_BOM).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise RequestError(Code.INVALID_REQUEST, "the text is not UTF-8", "Send UTF-8.") from exc
        user_message(prompt)
        return WireRequest(prompt=prompt)

    def _model(self, wanted: str | None) -> tuple[str, ModelConfig | None, str | None]:
        """Return the model that `<model>` or `<model>:<adapter>` means, its settings, and the adapter."""
        found = self._catalogue.find(wanted)
        if found is None:
            raise RequestError(
                Code.UNKNOWN_MODEL,
                f"there is no model {wanted!r}",
                "Models of this node: " + ", ".join(self._catalogue.names[:8]),
            )
        return found[0], self._catalogue.settings(found[0]), found[1]

    def _sampling(
        self, wire: WireRequest, settings: ClientConfig, capabilities: Mapping[str, bool] | None
    ) -> tuple[dict[str, float], list[str]]:
        """Return the sampling parameters, and the names of those that this runtime cannot change per run."""
        preset = wire.preset or settings.preset
        if preset is not None and preset not in self._config.presets:
            raise RequestError(
                Code.INVALID_REQUEST,
                f"preset: there is no preset {preset!r}",
                "Presets of this node: " + ", ".join(sorted(self._config.presets)),
            )
        sampling = self._config.presets[preset].model_dump(exclude_none=True) if preset is not None else {}
        asked = {name: getattr(wire, name) for name in wire.sent(SAMPLING)}
        if capabilities and not capabilities.get("per_run_sampling", True):
            return {}, [*asked, *(["preset"] if wire.preset else [])]
        return {**sampling, **asked}, []

    def _find_settings(self, client: str) -> ClientConfig:
        for settings in self._config.clients:
            if fnmatchcase(client, settings.name):
                return settings
        return ClientConfig(name=client)


def _check_offers(model: ModelConfig | None) -> None:
    """Refuse tools where the template cannot offer them."""
    if model is not None and model.template in ("raw", "runtime"):
        raise RequestError(
            Code.UNSUPPORTED,
            f"tools: the template {model.template!r} of model {model.id!r} cannot offer them",
            "Send the request without tools, or configure another template for the model.",
        )


def parse_cancel(payload: bytes, topic_id: str | None) -> str | None:
    """Return the id that a cancel names; None means all requests of the client.

    Raises:
        RequestError: It names none, or one that no request can have.
    """
    if topic_id is not None:
        return topic_id
    text = payload.removeprefix(_BOM).decode("utf-8", "replace").strip()
    name: object = text
    hint = 'Send an id as text, {"id": ...} or {"all": true}.'
    if text.startswith("{"):
        try:
            members = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise RequestError(Code.INVALID_JSON, "the cancel is not valid JSON", hint) from exc
        if members.get("all") is True:
            return None
        name = members.get("id")
    if not isinstance(name, str) or not is_id(name):
        raise RequestError(Code.INVALID_REQUEST, "the cancel names no valid id", hint)
    return name
