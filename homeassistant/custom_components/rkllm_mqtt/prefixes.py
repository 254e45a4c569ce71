"""Let the daemon know how each agent's prompts begin, and get that ready when a satellite begins to listen.

Rule 1: what is registered is what a question will be sent with, byte for byte, but what one satellite has.
Rule 2: nobody waits for any of this, and nothing fails when it does: a question then only takes longer.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from homeassistant.components import conversation, mqtt
from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.const import CONF_LLM_HASS_API, CONF_MODEL, CONF_PROMPT
from homeassistant.core import CALLBACK_TYPE, Context, Event, EventStateChangedData, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import llm
from homeassistant.helpers.event import TrackStates, async_track_state_change_filtered
from homeassistant.util.ulid import ulid_now

from .client import RkllmClient
from .const import (
    CONF_BASE,
    CONF_CLIENT,
    CONF_NODE,
    CONF_SELECTED_TOOLS,
    CONF_TOOLS,
    DEFAULT_PROMPT,
    DOMAIN,
    FEATURE_PREFIXES,
    FEATURE_WARM,
    SUBENTRY_CONVERSATION,
    TOOLS_ALL,
)
from .entity import RkllmConfigEntry
from .messages import split_system
from .tools import canonical, choose_tools, format_tools

HOLD_S = 6
"""About what a person needs to speak and speech recognition to understand."""
_SATELLITES = "assist_satellite"
_LISTENING = "listening"

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
    try:
        if wanted:  # asked first, since the chat log would log a refusal as an error
            await llm.async_get_api(hass, wanted, context)
    except HomeAssistantError:
        wanted = []
    # Made as that of a question is made: whatever Home Assistant puts into it is in it.
    log = conversation.ChatLog(hass, ulid_now())
    await log.async_provide_llm_data(context, wanted or None, data.get(CONF_PROMPT, DEFAULT_PROMPT))
    system, api = log.content[0], log.llm_api
    text = split_system(system.content or "")[0] if isinstance(system, conversation.SystemContent) else ""
    return (text, api.tools, api.custom_serializer) if api else (text, [], None)


async def async_beginning(hass: HomeAssistant, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the messages and tools that begin every prompt of an agent."""
    system, offered, serializer = await async_constant_part(hass, data, data.get(CONF_LLM_HASS_API) or ())
    chosen = choose_tools(offered, data.get(CONF_TOOLS, TOOLS_ALL), data.get(CONF_SELECTED_TOOLS, ()))
    tools = {"tools": format_tools(chosen, serializer)} if chosen else {}
    return {"messages": [{"role": "system", "content": system}], **tools}


async def async_unregister(hass: HomeAssistant, entry: ConfigEntry) -> None:
    """Let the daemon forget the prefixes of an entry that is removed, if it can be told."""
    if mqtt.DOMAIN not in hass.config.components or not mqtt.is_connected(hass):
        return
    data = entry.data
    box = f"{data[CONF_BASE]}/{data[CONF_NODE]}/client/{data[CONF_CLIENT]}"
    for subentry in agents_of(entry):
        body = canonical({"unregister": subentry.subentry_id})
        with suppress(HomeAssistantError):
            await mqtt.async_publish(hass, f"{box}/request/{ulid_now()}", body, qos=1, retain=False)


class Prefixes:
    """What the daemon was told of one entry's agents."""

    def __init__(self, hass: HomeAssistant, entry: RkllmConfigEntry, lost: Callable[[], None]) -> None:
        """Keep the entry; `lost` is called when the daemon has forgotten a prefix."""
        self._hass = hass
        self._entry = entry
        self._client: RkllmClient = entry.runtime_data
        self._lost = lost
        self._registered: dict[str, str] = {}
        self._refused: set[str] = set()
        self._systems: dict[str, str] = {}
        self._client.on_prompt = self._sent

    @callback
    def async_register(self, subentry: ConfigSubentry, beginning: Mapping[str, Any]) -> None:
        """Register an agent's prefix, unless the daemon has it."""
        info = self._client.info
        if info is None or FEATURE_PREFIXES not in info.features or not self._client.available:
            return
        name = subentry.subentry_id
        body: dict[str, Any] = {"register": name, **beginning}
        if model := subentry.data.get(CONF_MODEL):
            body["model"] = model
        known = f"{info.boot_id} {canonical(body)}"
        self._systems[name] = beginning["messages"][0]["content"]
        if self._registered.get(name) != known:
            self._registered[name] = known
            self._refused.discard(name)
            self._client.tell(body, lambda: self._refused.add(name))  # asked again when something changes

    @callback
    def async_unregister_removed(self) -> None:
        """Let the daemon forget the agents that the entry has no more."""
        for name in self._registered.keys() - self._entry.subentries.keys():
            del self._registered[name]
            if self._client.available:
                self._client.tell({"unregister": name}, lambda: None)

    @callback
    def async_warm_on_listening(self) -> CALLBACK_TYPE:
        """Begin to watch the satellites; return what ends it."""
        track = async_track_state_change_filtered(
            self._hass, TrackStates(False, set(), {_SATELLITES}), self._changed
        )
        return track.async_remove

    @callback
    def _changed(self, event: Event[EventStateChangedData]) -> None:
        new, old = event.data["new_state"], event.data["old_state"]
        if new is None or new.state != _LISTENING or (old is not None and old.state == _LISTENING):
            return
        info = self._client.info
        if info is None or FEATURE_WARM not in info.features or not self._client.available:
            return
        name = self._agent_of(event.data["entity_id"])
        if name is not None and name in self._registered and name not in self._refused:
            self._client.tell({"warm": name, "hold_s": HOLD_S}, lambda: self._forgotten(name))

    @callback
    def _sent(self, name: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Look again when a question began otherwise: names and areas change without being told to us."""
        if name in self._systems and messages[0].get("content") != self._systems[name]:
            self._lost()

    @callback
    def _forgotten(self, name: str) -> None:
        self._registered.pop(name, None)
        self._lost()

    def _agent_of(self, satellite: str) -> str | None:
        """Return the name of the agent that a satellite's questions go to; None when it is not ours."""
        if "assist_pipeline" not in self._hass.config.components:
            return None
        from homeassistant.components.assist_pipeline import (
            async_get_pipeline,
            async_get_pipelines,
        )

        wanted = self._pipeline_of(satellite)
        pipelines = async_get_pipelines(self._hass)
        pipeline = next((each for each in pipelines if each.name == wanted), None)
        engine = (pipeline or async_get_pipeline(self._hass)).conversation_engine
        agent = er.async_get(self._hass).async_get(engine)
        ours = agent is not None and agent.config_entry_id == self._entry.entry_id
        return agent.config_subentry_id if ours and agent is not None else None

    def _pipeline_of(self, satellite: str) -> str | None:
        """Return what the satellite's own selection of an assistant says."""
        registry = er.async_get(self._hass)
        known = registry.async_get(satellite)
        if known is None or known.device_id is None:
            return None
        for each in er.async_entries_for_device(registry, known.device_id):
            if each.domain == "select" and each.translation_key == "pipeline":
                state = self._hass.states.get(each.entity_id)
                return None if state is None else state.state
        return None


def agents_of(entry: ConfigEntry) -> list[ConfigSubentry]:
    """Return the agents of an entry."""
    return [each for each in entry.subentries.values() if each.subentry_type == SUBENTRY_CONVERSATION]
