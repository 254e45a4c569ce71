"""What agents and AI tasks have in common: a device of their own, availability, and the loop over tools."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from homeassistant.components import conversation
from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.const import CONF_MODEL
from homeassistant.core import callback
from homeassistant.helpers.device_registry import DeviceEntryType, DeviceInfo
from homeassistant.helpers.entity import Entity
from homeassistant.util.ulid import ulid_now

from .budget import reply_tokens
from .client import Piece, RkllmClient
from .const import (
    CONF_HISTORY,
    CONF_MAX_TOKENS,
    CONF_SELECTED_TOOLS,
    CONF_TEMPERATURE,
    CONF_THINKING,
    CONF_TOOLS,
    DEFAULT_HISTORY,
    DOMAIN,
    FEATURE_TOOLS,
    TOOLS_ALL,
)
from .failure import RkllmFailure, async_queue_place, async_sentence
from .issues import async_check_context
from .messages import build_messages, estimate_tokens
from .tools import choose_tools, format_tools, read_call

type RkllmConfigEntry = ConfigEntry[RkllmClient]

MAX_ROUNDS = 8
"""Longest chain of tool calls before an answer."""


@dataclass(slots=True)
class Turn:
    """One question, through all its rounds."""

    request: dict[str, Any]
    """Members of each request beside messages and tools."""
    total_s: float
    """Longest time for one round, seconds."""
    language: str
    failure: RkllmFailure | None = None
    """Why the answer broke off after its beginning was given out; told in the answer itself."""
    usage: list[dict[str, int]] = field(default_factory=list)


class RkllmEntity(Entity):
    """An entity of one subentry."""

    _attr_has_entity_name = True
    _attr_name = None
    _attr_should_poll = False

    def __init__(self, entry: RkllmConfigEntry, subentry: ConfigSubentry) -> None:
        """Keep the entry and the settings."""
        self.entry = entry
        self.subentry = subentry
        self._client = entry.runtime_data
        info = self._client.info
        model = info.model(subentry.data.get(CONF_MODEL)) if info else None
        self._attr_unique_id = subentry.subentry_id
        self._attr_device_info = DeviceInfo(
            identifiers={(DOMAIN, subentry.subentry_id)},
            name=subentry.title,
            manufacturer="rkllm-mqtt",
            model=model.id if model else subentry.data.get(CONF_MODEL),
            sw_version=info.version if info else None,
            entry_type=DeviceEntryType.SERVICE,
        )

    async def async_added_to_hass(self) -> None:
        """Follow the availability of the daemon."""
        await super().async_added_to_hass()
        self.async_on_remove(self._client.async_add_listener(self._follow))

    @property
    def available(self) -> bool:
        """Return whether the daemon can be asked."""
        return self._client.available

    @callback
    def _follow(self) -> None:
        self.async_write_ha_state()

    def _request(self, priority: str, max_tokens: int) -> dict[str, Any]:
        """Return the members of a request that the settings decide."""
        data = self.subentry.data
        request: dict[str, Any] = {
            "priority": priority,
            "max_tokens": int(data.get(CONF_MAX_TOKENS, max_tokens)),
            "thinking": bool(data.get(CONF_THINKING, False)),
        }
        if data.get(CONF_MODEL):
            request["model"] = data[CONF_MODEL]
        if data.get(CONF_TEMPERATURE) is not None:
            request["temperature"] = float(data[CONF_TEMPERATURE])
        return request

    async def _answer(self, chat_log: conversation.ChatLog, turn: Turn) -> None:
        """Ask, call the tools that the model wants, and ask again, until there is an answer.

        Raises:
            RkllmFailure: There is none. An answer that broke off is in the chat log, and in `turn.failure`.
        """
        for _ in range(MAX_ROUNDS):
            async with aclosing(self._deltas(chat_log, turn)) as deltas:
                async for _content in chat_log.async_add_delta_content_stream(self.entity_id, deltas):
                    pass
            if turn.failure is not None or not chat_log.unresponded_tool_results:
                return
        raise RkllmFailure("too_many_rounds")

    def _build(self, chat_log: conversation.ChatLog, turn: Turn) -> dict[str, Any]:
        """Return the next request of a turn."""
        data, info = self.subentry.data, self._client.info
        request = dict(turn.request)
        tools: list[dict[str, Any]] = []
        if (api := chat_log.llm_api) is not None:
            if info is None or FEATURE_TOOLS not in info.features:
                raise RkllmFailure("tools_unsupported")
            chosen = choose_tools(
                api.tools, data.get(CONF_TOOLS, TOOLS_ALL), data.get(CONF_SELECTED_TOOLS, ())
            )
            tools = format_tools(chosen, api.custom_serializer)
        if tools:
            request["tools"] = tools
        room = reply_tokens(info, data)
        request["messages"] = build_messages(
            chat_log.content,
            max_turns=int(data.get(CONF_HISTORY, DEFAULT_HISTORY)),
            budget_tokens=room - estimate_tokens(tools),
        )
        self._client.on_prompt(self.subentry.subentry_id, request["messages"])
        return request

    async def _deltas(
        self, chat_log: conversation.ChatLog, turn: Turn
    ) -> AsyncGenerator[conversation.AssistantContentDeltaDict]:
        """Give out one round as the chat log wants it."""
        request = self._build(chat_log, turn)
        spoken = False
        yield {"role": "assistant"}
        try:
            async with aclosing(self._client.stream(request, turn.total_s)) as pieces:
                async for piece in pieces:
                    if piece.position is not None and piece.position > 1 and not spoken:
                        place = await async_queue_place(self.hass, piece.position, turn.language)
                        yield {"thinking_content": f"{place}\n"}
                    if piece.thinking:
                        yield {"thinking_content": piece.thinking}
                    if piece.text:
                        spoken = True
                        yield {"content": piece.text}
                    if piece.final is not None:
                        turn.usage.append(dict(piece.final.usage))
                        chat_log.async_trace({"stats": _stats(piece.final.usage)})
                        if calls := self._calls(chat_log, piece):
                            yield {"tool_calls": calls}
                        elif not spoken:
                            raise RkllmFailure("empty_answer")
        except RkllmFailure as failure:
            if failure.code == "context_overflow":
                self._check_context(request, overflow=True)
            if not spoken:
                raise
            # A stream cannot be taken back: who hears it must hear that it ends here.
            turn.failure = failure
            yield {"content": f" … {await async_sentence(self.hass, failure, turn.language)}"}
        else:
            self._check_context(request, overflow=False)

    def _check_context(self, request: dict[str, Any], *, overflow: bool) -> None:
        system = next((m["content"] for m in request["messages"] if m["role"] == "system"), "")
        tools = request.get("tools", [])
        async_check_context(self.hass, self.entry, self.subentry, system, tools, overflow=overflow)

    def _calls(self, chat_log: conversation.ChatLog, piece: Piece) -> list[Any]:
        if piece.final is None or chat_log.llm_api is None:
            return []
        api = chat_log.llm_api
        known = {
            call.id
            for content in chat_log.content
            if isinstance(content, conversation.AssistantContent)
            for call in content.tool_calls or ()
        }
        calls = []
        for call in piece.final.tool_calls:
            call_id = str(call.get("id") or "")
            if not call_id or call_id in known:
                call_id = ulid_now()
            known.add(call_id)
            calls.append(read_call(call, api.tools, api.custom_serializer, call_id))
        return calls


def _stats(usage: Mapping[str, int]) -> dict[str, int]:
    """Return the tokens of an answer by the names of Home Assistant's conversation trace."""
    return {
        "input_tokens": usage.get("prompt_tokens", 0),
        "cached_input_tokens": usage.get("cached_tokens", 0),
        "output_tokens": usage.get("completion_tokens", 0),
    }
