"""Weigh and register the constant part of each agent's prompt, at the start and after changes."""

from typing import Any

from homeassistant.components import conversation
from homeassistant.components.homeassistant.exposed_entities import async_listen_entity_updates
from homeassistant.const import CONF_LLM_HASS_API
from homeassistant.core import CALLBACK_TYPE, Event, HomeAssistant, callback
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.debounce import Debouncer
from homeassistant.helpers.start import async_at_started
from homeassistant.util.event_type import EventType

from .const import LOGGER
from .entity import RkllmConfigEntry
from .issues import async_check_context
from .messages import estimate_tokens
from .prefixes import Prefixes, agents_of, async_beginning

COOLDOWN_S = 10.0
"""A person who exposes entities exposes several."""
_REGISTRIES: tuple[EventType[Any], ...] = (
    ar.EVENT_AREA_REGISTRY_UPDATED,
    dr.EVENT_DEVICE_REGISTRY_UPDATED,
    er.EVENT_ENTITY_REGISTRY_UPDATED,
)
"""Names and areas are in the prompt, and new entities of some kinds are exposed without a word."""


@callback
def async_watch_exposure(hass: HomeAssistant, entry: RkllmConfigEntry) -> CALLBACK_TYPE:
    """Begin to weigh and to register; return what ends it."""
    client = entry.runtime_data
    ended = False

    async def look() -> None:
        found = []
        for subentry in agents_of(entry):
            beginning = await async_beginning(hass, subentry.data)
            if ended:  # meanwhile
                return
            if subentry.data.get(CONF_LLM_HASS_API):
                system = beginning["messages"][0]["content"]
                async_check_context(hass, entry, subentry, system, beginning.get("tools", []))
            found.append((estimate_tokens(beginning), subentry, beginning))
        # A daemon keeps a few of one client: those that cost most to compute.
        for _, subentry, beginning in sorted(found, key=lambda each: each[0], reverse=True):
            prefixes.async_register(subentry, beginning)

    debouncer = Debouncer(hass, LOGGER, cooldown=COOLDOWN_S, immediate=False, function=look, background=True)

    @callback
    def changed() -> None:
        debouncer.async_schedule_call()

    @callback
    def heard(_: Event[Any]) -> None:
        changed()

    async def started(_: HomeAssistant) -> None:
        await look()

    prefixes = Prefixes(hass, entry, changed)
    ends = [
        async_at_started(hass, started),
        async_listen_entity_updates(hass, conversation.DOMAIN, changed),
        client.async_add_listener(changed),
        prefixes.async_warm_on_listening(),
        *(hass.bus.async_listen(event, heard) for event in _REGISTRIES),
        debouncer.async_shutdown,
    ]

    @callback
    def end() -> None:
        nonlocal ended
        ended = True
        for each in ends:
            each()
        prefixes.async_unregister_removed()

    return end
