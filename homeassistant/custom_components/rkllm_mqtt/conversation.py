"""A conversation agent: streams the model's answer and calls Home Assistant's tools."""

from typing import Literal

from homeassistant.components import conversation
from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import CONF_LLM_HASS_API, CONF_PROMPT, MATCH_ALL
from homeassistant.core import HomeAssistant
from homeassistant.helpers import intent
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .const import DEFAULT_MAX_TOKENS, DEFAULT_PROMPT, DOMAIN, SUBENTRY_CONVERSATION
from .entity import RkllmConfigEntry, RkllmEntity, Turn
from .failure import RkllmFailure, async_sentence

PARALLEL_UPDATES = 0

TOTAL_S = 280.0
"""A round must end before Home Assistant's pipeline gives up, after 300 s."""


async def async_setup_entry(
    hass: HomeAssistant, entry: RkllmConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add an agent for each conversation subentry."""
    for subentry in entry.subentries.values():
        if subentry.subentry_type == SUBENTRY_CONVERSATION:
            async_add_entities([RkllmConversation(entry, subentry)], config_subentry_id=subentry.subentry_id)


class RkllmConversation(RkllmEntity, conversation.ConversationEntity, conversation.AbstractConversationAgent):
    """An agent on the NPU's slot, before all other work."""

    _attr_supports_streaming = True
    _attr_translation_key = "agent"

    def __init__(self, entry: RkllmConfigEntry, subentry: ConfigSubentry) -> None:
        """Keep the entry and the settings."""
        super().__init__(entry, subentry)
        if subentry.data.get(CONF_LLM_HASS_API):
            self._attr_supported_features = conversation.ConversationEntityFeature.CONTROL

    @property
    def supported_languages(self) -> list[str] | Literal["*"]:
        """Return that the model knows which languages it speaks."""
        return MATCH_ALL

    async def _async_handle_message(
        self, user_input: conversation.ConversationInput, chat_log: conversation.ChatLog
    ) -> conversation.ConversationResult:
        """Answer; a failure is said in the language of the question."""
        data = self.subentry.data
        try:
            await chat_log.async_provide_llm_data(
                user_input.as_llm_context(DOMAIN),
                data.get(CONF_LLM_HASS_API),
                data.get(CONF_PROMPT, DEFAULT_PROMPT),
                user_input.extra_system_prompt,
            )
        except conversation.ConverseError as err:
            return err.as_conversation_result()
        turn = Turn(
            {**self._request("interactive", DEFAULT_MAX_TOKENS), "ttl_s": TOTAL_S},
            TOTAL_S,
            user_input.language,
        )
        try:
            await self._answer(chat_log, turn)
        except RkllmFailure as failure:
            sentence = await async_sentence(self.hass, failure, user_input.language)
            chat_log.async_add_assistant_content_without_tools(
                conversation.AssistantContent(agent_id=self.entity_id, content=f"Error: {sentence}")
            )
            return _failed(user_input, chat_log, sentence)
        if turn.failure is not None:
            said = chat_log.content[-1]
            text = said.content if isinstance(said, conversation.AssistantContent) else None
            return _failed(user_input, chat_log, text or str(turn.failure))
        return conversation.async_get_result_from_chat_log(user_input, chat_log)


def _failed(
    user_input: conversation.ConversationInput, chat_log: conversation.ChatLog, sentence: str
) -> conversation.ConversationResult:
    response = intent.IntentResponse(language=user_input.language)
    response.async_set_error(intent.IntentResponseErrorCode.FAILED_TO_HANDLE, sentence)
    return conversation.ConversationResult(
        response=response, conversation_id=chat_log.conversation_id, continue_conversation=False
    )
