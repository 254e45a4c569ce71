"""Set up a daemon: found by itself on the broker, or looked for; one entry for each."""

from collections.abc import Mapping
from typing import Any

import probatio
from homeassistant.components import mqtt
from homeassistant.config_entries import (
    ConfigEntry,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentryData,
    ConfigSubentryFlow,
)
from homeassistant.const import CONF_LLM_HASS_API, CONF_PROMPT
from homeassistant.core import callback
from homeassistant.helpers import llm
from homeassistant.helpers.selector import SelectOptionDict, SelectSelector, SelectSelectorMode
from homeassistant.helpers.service_info.mqtt import MqttServiceInfo

from .const import (
    CONF_BASE,
    CONF_CLIENT,
    CONF_NODE,
    DEFAULT_BASE,
    DEFAULT_PROMPT,
    DOMAIN,
    FEATURE_TOOLS,
    PROTOCOL_MAJOR,
    SUBENTRY_AI_TASK,
    SUBENTRY_CONVERSATION,
)
from .probe import async_find, default_client
from .protocol import Info, is_client, parse_info
from .subentry_flow import AgentFlow, TaskFlow


class RkllmConfigFlow(ConfigFlow, domain=DOMAIN):
    """Ask for a daemon and for our name there."""

    VERSION = 1
    MINOR_VERSION = 1

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._found: dict[str, Info] = {}
        self._info: Info | None = None

    @classmethod
    @callback
    def async_get_supported_subentry_types(
        cls, config_entry: ConfigEntry
    ) -> dict[str, type[ConfigSubentryFlow]]:
        """Return the flows of agents and AI tasks."""
        return {SUBENTRY_CONVERSATION: AgentFlow, SUBENTRY_AI_TASK: TaskFlow}

    async def async_step_mqtt(self, discovery_info: MqttServiceInfo) -> ConfigFlowResult:
        """Take a daemon that Home Assistant has found by its retained `info`."""
        info = parse_info(discovery_info.payload)
        if info is None or discovery_info.topic != f"{info.base}/{info.node}/info":
            return self.async_abort(reason="invalid_discovery_info")
        if info.major != PROTOCOL_MAJOR:
            return self.async_abort(
                reason="unsupported_protocol",
                description_placeholders={"theirs": info.schema, "ours": f"{PROTOCOL_MAJOR}.x"},
            )
        await self._async_choose(info)
        return await self.async_step_confirm()

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Look for daemons and let the person choose one."""
        if not await mqtt.async_wait_for_mqtt_client(self.hass):
            return self.async_abort(reason="mqtt_required")
        if user_input is not None:
            await self._async_choose(self._found[user_input[CONF_NODE]], raise_on_progress=False)
            return await self.async_step_confirm()
        known = self._async_current_ids(include_ignore=False)
        found = await async_find(self.hass, f"{DEFAULT_BASE}/+/info")
        self._found = {
            info.uid: info for info in found if info.uid not in known and info.major == PROTOCOL_MAJOR
        }
        if not self._found:
            return self.async_abort(reason="no_devices_found")
        options = [SelectOptionDict(value=info.uid, label=_label(info)) for info in self._found.values()]
        selector = SelectSelector({"options": options, "mode": SelectSelectorMode.LIST})
        return self.async_show_form(
            step_id="user", data_schema=probatio.Schema({probatio.Required(CONF_NODE): selector})
        )

    async def async_step_confirm(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask for our client name, then create the entry with an agent and an AI task."""
        info = self._info
        assert info is not None
        errors: dict[str, str] = {}
        if user_input is not None:
            if is_client(user_input[CONF_CLIENT]):
                return self.async_create_entry(
                    title=f"RKLLM {info.node}",
                    data={
                        CONF_BASE: info.base,
                        CONF_NODE: info.node,
                        CONF_CLIENT: user_input[CONF_CLIENT],
                    },
                    subentries=default_subentries(info),
                )
            errors[CONF_CLIENT] = "invalid_client"
        suggested = user_input or {CONF_CLIENT: default_client(self.hass)}
        return self.async_show_form(
            step_id="confirm",
            data_schema=self.add_suggested_values_to_schema(
                probatio.Schema({probatio.Required(CONF_CLIENT): str}), suggested
            ),
            errors=errors,
            description_placeholders={"name": _label(info)},
        )

    async def async_step_reconfigure(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Change where the daemon is, or our name there."""
        entry = self._get_reconfigure_entry()
        if not await mqtt.async_wait_for_mqtt_client(self.hass):
            return self.async_abort(reason="mqtt_required")
        errors: dict[str, str] = {}
        if user_input is not None:
            errors = await self._async_check(entry, user_input)
            if not errors:
                return self.async_update_and_abort(entry, data_updates=user_input)
        schema = probatio.Schema(
            {
                probatio.Required(CONF_BASE): str,
                probatio.Required(CONF_NODE): str,
                probatio.Required(CONF_CLIENT): str,
            }
        )
        return self.async_show_form(
            step_id="reconfigure",
            data_schema=self.add_suggested_values_to_schema(schema, user_input or entry.data),
            errors=errors,
        )

    async def _async_check(self, entry: ConfigEntry, user_input: Mapping[str, Any]) -> dict[str, str]:
        if not is_client(user_input[CONF_CLIENT]):
            return {CONF_CLIENT: "invalid_client"}
        where = f"{user_input[CONF_BASE]}/{user_input[CONF_NODE]}"
        if any(c in where for c in "+#") or where.count("/") != 1:
            return {CONF_NODE: "invalid_topic"}
        found = await async_find(self.hass, f"{where}/info")
        if not found:
            return {CONF_NODE: "no_answer"}
        return {} if found[0].uid == entry.unique_id else {CONF_NODE: "another_daemon"}

    async def _async_choose(self, info: Info, *, raise_on_progress: bool = True) -> None:
        """Make this flow the one of a daemon; a known one is updated and the flow ends."""
        self._info = info
        await self.async_set_unique_id(info.uid, raise_on_progress=raise_on_progress)
        self._abort_if_unique_id_configured(updates={CONF_BASE: info.base, CONF_NODE: info.node})
        self.context["title_placeholders"] = {"name": _label(info)}


def default_subentries(info: Info) -> list[ConfigSubentryData]:
    """Return the agent and the AI task that every daemon begins with."""
    agent: dict[str, Any] = {CONF_PROMPT: DEFAULT_PROMPT}
    if FEATURE_TOOLS in info.features:
        agent[CONF_LLM_HASS_API] = [llm.LLM_API_ASSIST]
    return [
        ConfigSubentryData(
            subentry_type=SUBENTRY_CONVERSATION,
            data=agent,
            title=f"RKLLM {info.node} assistant",
            unique_id=None,
        ),
        ConfigSubentryData(
            subentry_type=SUBENTRY_AI_TASK, data={}, title=f"RKLLM {info.node} AI task", unique_id=None
        ),
    ]


def _label(info: Info) -> str:
    where = "simulated" if info.simulated else info.platform or "Rockchip"
    models = ", ".join(model.id for model in info.models)
    return f"{info.node} ({where}: {models})" if models else f"{info.node} ({where})"
