"""Weigh the constant part of each agent's prompt at the start and whenever something else is exposed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from homeassistant.components import conversation
from homeassistant.components.homeassistant.exposed_entities import async_listen_entity_updates
from homeassistant.const import CONF_LLM_HASS_API, CONF_PROMPT
from homeassistant.core import CALLBACK_TYPE, Context, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import llm
from homeassistant.helpers.debounce import Debouncer
from homeassistant.helpers.start import async_at_started

from .const import (
    CONF_SELECTED_TOOLS,
    CONF_TOOLS,
    DEFAULT_PROMPT,
    DOMAIN,
    LOGGER,
    SUBENTRY_CONVERSATION,
    TOOLS_ALL,
)
from .entity import RkllmConfigEntry
from .issues import async_check_context
from .messages import split_system
from .tools import choose_tools, format_tools

COOLDOWN_S = 10.0
"""A person who exposes entities exposes several."""

type Serializer = Callable[[Any], Any] | None


async def async_constant_part(
    hass: HomeAssistant, data: Mapping[str, Any], api_ids: Sequence[str]
) -> tuple[str, list[llm.Tool], Serializer]:
    """Return what begins every prompt of an agent: instructions with entities, the tools, their serializer.

    What differs from one satellite to another is left out; so is an API that needs its person.
    """
    context = llm.LLMContext(
        platform=DOMAIN, context=Context(), language=None, assistant=conversation.DOMAIN, device_id=None
    )
    known = {api.id for api in llm.async_get_apis(hass)}
    wanted = [api_id for api_id in api_ids if api_id in known]
    system = str(data.get(CONF_PROMPT, DEFAULT_PROMPT))
    if wanted:
        with suppress(HomeAssistantError):
            api = await llm.async_get_api(hass, wanted, context)
            return f"{system}\n{split_system(api.api_prompt)[0]}", api.tools, api.custom_serializer
    return system, [], None


@callback
def async_watch_exposure(hass: HomeAssistant, entry: RkllmConfigEntry) -> CALLBACK_TYPE:
    """Begin to weigh; return what ends it."""

    async def weigh() -> None:
        for subentry in entry.subentries.values():
            data = subentry.data
            if subentry.subentry_type != SUBENTRY_CONVERSATION or not data.get(CONF_LLM_HASS_API):
                continue
            system, offered, serializer = await async_constant_part(hass, data, data[CONF_LLM_HASS_API])
            chosen = choose_tools(offered, data.get(CONF_TOOLS, TOOLS_ALL), data.get(CONF_SELECTED_TOOLS, ()))
            async_check_context(hass, entry, subentry, system, format_tools(chosen, serializer))

    debouncer = Debouncer(hass, LOGGER, cooldown=COOLDOWN_S, immediate=False, function=weigh, background=True)

    @callback
    def changed() -> None:
        debouncer.async_schedule_call()

    async def started(_: HomeAssistant) -> None:
        await weigh()

    ends = [
        async_at_started(hass, started),
        async_listen_entity_updates(hass, conversation.DOMAIN, changed),
        debouncer.async_shutdown,
    ]

    @callback
    def end() -> None:
        for each in ends:
            each()

    return end
