"""AI tasks: text or structured data for automations, behind whoever speaks."""

from typing import Any

import probatio
from homeassistant.components import ai_task, conversation
from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import CONF_MODEL
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import llm
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.util.json import json_loads

from .const import (
    CONF_PRIORITY,
    DEFAULT_TASK_MAX_TOKENS,
    FEATURE_EVALUATE,
    FEATURE_RESPONSE_FORMAT,
    LOGGER,
    SUBENTRY_AI_TASK,
)
from .entity import RkllmConfigEntry, RkllmEntity, Turn
from .evaluation import expected_level, put_question, read_shares
from .failure import RkllmFailure
from .tools import canonical

PARALLEL_UPDATES = 0

TOTAL_S = 900.0
"""A task may wait long behind others, and write long."""
_OF_EVALUATION = ("priority", "ttl_s", "model")
"""Members of a request that count for an evaluation."""


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

    def __init__(self, entry: RkllmConfigEntry, subentry: ConfigSubentry) -> None:
        """Keep the entry and the settings."""
        super().__init__(entry, subentry)
        self._set_features()

    @callback
    def _follow(self) -> None:
        self._set_features()
        super()._follow()

    def _set_features(self) -> None:
        """Evaluate only where Home Assistant (2026.11) and the model in the slot can."""
        info = self._client.info
        model = info.model(self.subentry.data.get(CONF_MODEL)) if info else None
        features = ai_task.AITaskEntityFeature.GENERATE_DATA
        if model is not None and FEATURE_EVALUATE in model.capabilities:
            features |= getattr(ai_task.AITaskEntityFeature, "EVALUATE", 0)
        self._attr_supported_features = features

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

    async def _async_evaluate(self, task: ai_task.EvaluationTask) -> ai_task.EvaluationTaskResult:
        """Return how likely each answer to each question is, by the model's own probabilities.

        Raises:
            RkllmFailure: The model cannot be asked, or not about so much.
        """
        answers: dict[str, ai_task.EvaluationAnswer] = {}
        for name, question in task.questions.items():
            answers[name] = await self._weigh(question, task.state)
        return ai_task.EvaluationTaskResult(answers)

    async def _weigh(self, question: ai_task.EvaluationQuestion, state: Any) -> ai_task.EvaluationAnswer:
        asked = put_question(question, state)
        request = {key: value for key, value in self._turn_request().items() if key in _OF_EVALUATION}
        request |= {"task": "evaluate", "messages": asked.messages, "options": asked.options}
        shares = read_shares(await self._client.ask(request, TOTAL_S), asked.options)
        match question["type"]:
            case "choice":
                named = dict(zip(question["criteria"], shares, strict=True))
                return ai_task.ChoiceAnswer(max(named, key=named.__getitem__), named)
            case "score":
                return ai_task.ScoreAnswer(expected_level(shares), shares)
            case "noul":
                return ai_task.NoulAnswer(shares[0])

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
