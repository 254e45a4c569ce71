"""AI tasks: text or structured data for automations, behind whoever speaks."""

from typing import Any

import probatio
from homeassistant.components import ai_task, conversation
from homeassistant.core import HomeAssistant
from homeassistant.helpers import llm
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.util.json import json_loads

from .const import (
    CONF_PRIORITY,
    DEFAULT_TASK_MAX_TOKENS,
    FEATURE_RESPONSE_FORMAT,
    LOGGER,
    SUBENTRY_AI_TASK,
)
from .entity import RkllmConfigEntry, RkllmEntity, Turn
from .failure import RkllmFailure
from .tools import canonical

PARALLEL_UPDATES = 0

TOTAL_S = 900.0
"""A task may wait long behind others, and write long."""


async def async_setup_entry(
    hass: HomeAssistant, entry: RkllmConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add an entity for each AI task subentry."""
    for subentry in entry.subentries.values():
        if subentry.subentry_type == SUBENTRY_AI_TASK:
            async_add_entities([RkllmTask(entry, subentry)], config_subentry_id=subentry.subentry_id)


class RkllmTask(RkllmEntity, ai_task.AITaskEntity):
    """Work on the NPU's slot that can wait."""

    _attr_supported_features = ai_task.AITaskEntityFeature.GENERATE_DATA
    _attr_translation_key = "task"

    async def _async_generate_data(
        self, task: ai_task.GenDataTask, chat_log: conversation.ChatLog
    ) -> ai_task.GenDataTaskResult:
        """Return text, or data that the task's structure accepts.

        Raises:
            RkllmFailure: The model's answer does not fit the structure, also when asked again.
        """
        turn = Turn(self._turn_request(), TOTAL_S, self.hass.config.language)
        schema: dict[str, Any] | None = None
        if task.structure is not None:
            serializer = chat_log.llm_api.custom_serializer if chat_log.llm_api else None
            schema = probatio.to_openapi(
                task.structure,
                custom_serializer=serializer or llm.selector_serializer,
                openapi_version="3.1.0",
            )
            self._ask_for_json(turn, chat_log, task.name, schema)
        text = await self._text(chat_log, turn)
        if task.structure is None:
            return ai_task.GenDataTaskResult(chat_log.conversation_id, text)
        try:
            data = _read(text, task.structure)
        except ValueError as err:
            LOGGER.debug("The answer does not fit the structure: %s", type(err).__name__)
            chat_log.async_add_user_content(
                conversation.UserContent(f"That is not valid: {err}. Answer with the corrected JSON only.")
            )
            try:
                data = _read(await self._text(chat_log, turn), task.structure)
            except ValueError as again:
                raise RkllmFailure("invalid_output") from again
        return ai_task.GenDataTaskResult(chat_log.conversation_id, data)

    def _turn_request(self) -> dict[str, Any]:
        priority = self.subentry.data.get(CONF_PRIORITY, "normal")
        return {**self._request(priority, DEFAULT_TASK_MAX_TOKENS), "ttl_s": TOTAL_S}

    def _ask_for_json(
        self, turn: Turn, chat_log: conversation.ChatLog, name: str, schema: dict[str, Any]
    ) -> None:
        info = self._client.info
        # A schema is bound to the final answer, which is not the first one when tools are called.
        if chat_log.llm_api is None and info is not None and FEATURE_RESPONSE_FORMAT in info.features:
            turn.request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": _schema_name(name), "schema": schema, "strict": True},
            }
        system = chat_log.content[0]
        if isinstance(system, conversation.SystemContent):
            rule = f"Answer only with JSON of this schema: {canonical(schema)}"
            chat_log.content[0] = conversation.SystemContent(content=f"{system.content}\n{rule}")

    async def _text(self, chat_log: conversation.ChatLog, turn: Turn) -> str:
        await self._answer(chat_log, turn)
        if turn.failure is not None:
            raise turn.failure
        content = chat_log.content[-1]
        if not isinstance(content, conversation.AssistantContent):
            raise RkllmFailure("no_answer")
        return content.content or ""


def _schema_name(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
    return plain[:64] or "data"


def _read(text: str, structure: probatio.Schema) -> Any:
    """Return the data of a JSON answer, with or without a code fence around it.

    Raises:
        ValueError: It is no JSON, or not as the structure wants it.
    """
    text = text.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    data = json_loads(text)
    try:
        return structure(data)
    except probatio.Invalid as err:
        raise ValueError(str(err)) from err
