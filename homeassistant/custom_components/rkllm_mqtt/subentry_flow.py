"""Settings of an agent or an AI task, with the budget of its prompt shown while choosing."""

from abc import abstractmethod
from typing import Any

import probatio
from homeassistant.config_entries import ConfigEntryState, ConfigSubentryFlow, SubentryFlowResult
from homeassistant.const import CONF_LLM_HASS_API, CONF_MODEL, CONF_NAME, CONF_PROMPT
from homeassistant.core import HomeAssistant
from homeassistant.helpers import llm
from homeassistant.helpers.selector import (
    BooleanSelector,
    NumberSelector,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorMode,
    TemplateSelector,
)

from .budget import context_tokens, prompt_tokens
from .const import (
    CONF_HISTORY,
    CONF_MAX_TOKENS,
    CONF_PRIORITY,
    CONF_SELECTED_TOOLS,
    CONF_TEMPERATURE,
    CONF_THINKING,
    CONF_TOOLS,
    DEFAULT_HISTORY,
    DEFAULT_MAX_TOKENS,
    DEFAULT_PROMPT,
    DEFAULT_TASK_MAX_TOKENS,
    FEATURE_TOOLS,
    TOOLS_ALL,
    TOOLS_CONTROL,
    TOOLS_SELECTED,
)
from .prefixes import async_constant_part
from .protocol import Info
from .tools import choose_tools, format_tools

type Fields = dict[Any, Any]


class SettingsFlow(ConfigSubentryFlow):
    """What both kinds share."""

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> SubentryFlowResult:
        """Add one."""
        return await self._async_step("user", user_input, self._defaults())

    async def async_step_reconfigure(self, user_input: dict[str, Any] | None = None) -> SubentryFlowResult:
        """Change one."""
        subentry = self._get_reconfigure_subentry()
        return await self._async_step("reconfigure", user_input, {**subentry.data, CONF_NAME: subentry.title})

    async def _async_step(
        self, step_id: str, user_input: dict[str, Any] | None, values: dict[str, Any]
    ) -> SubentryFlowResult:
        entry = self._get_entry()
        if entry.state is not ConfigEntryState.LOADED:
            return self.async_abort(reason="entry_not_loaded")
        info: Info = entry.runtime_data.known
        errors: dict[str, str] = {}
        if user_input is not None:
            values = user_input
            errors = self._check(info, user_input)
            if not errors:
                data = {key: value for key, value in user_input.items() if value not in (None, "", [])}
                title = data.pop(CONF_NAME)
                if step_id == "user":
                    return self.async_create_entry(title=title, data=data)
                return self.async_update_and_abort(
                    entry, self._get_reconfigure_subentry(), title=title, data=data
                )
        api_ids = values.get(CONF_LLM_HASS_API) or [llm.LLM_API_ASSIST]
        tools, numbers = await async_weigh(self.hass, info, values, api_ids)
        return self.async_show_form(
            step_id=step_id,
            data_schema=self.add_suggested_values_to_schema(
                probatio.Schema(self._fields(info, tools)), values
            ),
            errors=errors,
            description_placeholders=numbers,
        )

    @abstractmethod
    def _defaults(self) -> dict[str, Any]:
        """Return the values of a new one."""

    @abstractmethod
    def _fields(self, info: Info, tools: list[str]) -> Fields:
        """Return the form; `tools` are the names to choose from."""

    def _check(self, info: Info, user_input: dict[str, Any]) -> dict[str, str]:
        model = user_input.get(CONF_MODEL)
        return {CONF_MODEL: "unknown_model"} if model and info.model(model) is None else {}


def _common_fields(info: Info, max_tokens: int) -> Fields:
    models = [SelectOptionDict(value=m.id, label=f"{m.id} ({m.context_tokens})") for m in info.models]
    fields: Fields = {
        probatio.Optional(CONF_MODEL): SelectSelector(
            {"options": models, "mode": SelectSelectorMode.DROPDOWN, "custom_value": True}
        ),
        probatio.Optional(CONF_MAX_TOKENS, default=max_tokens): NumberSelector(
            {"min": 16, "max": 8192, "mode": NumberSelectorMode.BOX}
        ),
        probatio.Optional(CONF_TEMPERATURE): NumberSelector(
            {"min": 0, "max": 2, "step": 0.05, "mode": NumberSelectorMode.BOX}
        ),
    }
    if any("thinking" in model.capabilities for model in info.models):
        fields[probatio.Optional(CONF_THINKING, default=False)] = BooleanSelector()
    return fields


class AgentFlow(SettingsFlow):
    """Settings of a conversation agent."""

    def _defaults(self) -> dict[str, Any]:
        return {
            CONF_NAME: "RKLLM",
            CONF_PROMPT: DEFAULT_PROMPT,
            CONF_LLM_HASS_API: [llm.LLM_API_ASSIST],
        }

    def _fields(self, info: Info, tools: list[str]) -> Fields:
        apis = [SelectOptionDict(value=a.id, label=a.name) for a in llm.async_get_apis(self.hass)]
        return {
            probatio.Required(CONF_NAME): str,
            probatio.Optional(CONF_PROMPT): TemplateSelector(),
            probatio.Optional(CONF_LLM_HASS_API): SelectSelector(
                {"options": apis, "multiple": True, "mode": SelectSelectorMode.LIST}
            ),
            probatio.Optional(CONF_TOOLS, default=TOOLS_ALL): SelectSelector(
                {
                    "options": [TOOLS_ALL, TOOLS_CONTROL, TOOLS_SELECTED],
                    "translation_key": CONF_TOOLS,
                    "mode": SelectSelectorMode.DROPDOWN,
                }
            ),
            probatio.Optional(CONF_SELECTED_TOOLS): SelectSelector(
                {"options": tools, "multiple": True, "mode": SelectSelectorMode.DROPDOWN}
            ),
            probatio.Optional(CONF_HISTORY, default=DEFAULT_HISTORY): NumberSelector(
                {"min": 0, "max": 50, "mode": NumberSelectorMode.BOX}
            ),
            **_common_fields(info, DEFAULT_MAX_TOKENS),
        }

    def _check(self, info: Info, user_input: dict[str, Any]) -> dict[str, str]:
        errors = super()._check(info, user_input)
        if user_input.get(CONF_LLM_HASS_API) and FEATURE_TOOLS not in info.features:
            errors[CONF_LLM_HASS_API] = "tools_unsupported"
        if user_input.get(CONF_TOOLS) == TOOLS_SELECTED and not user_input.get(CONF_SELECTED_TOOLS):
            errors[CONF_SELECTED_TOOLS] = "no_tools_selected"
        known = {api.id for api in llm.async_get_apis(self.hass)}
        if not known.issuperset(user_input.get(CONF_LLM_HASS_API) or ()):
            errors[CONF_LLM_HASS_API] = "unknown_api"
        return errors


class TaskFlow(SettingsFlow):
    """Settings of AI tasks."""

    def _defaults(self) -> dict[str, Any]:
        return {CONF_NAME: "RKLLM AI task"}

    def _fields(self, info: Info, tools: list[str]) -> Fields:
        return {
            probatio.Required(CONF_NAME): str,
            probatio.Optional(CONF_PRIORITY, default="normal"): SelectSelector(
                {
                    "options": ["interactive", "normal", "background"],
                    "translation_key": CONF_PRIORITY,
                    "mode": SelectSelectorMode.DROPDOWN,
                }
            ),
            **_common_fields(info, DEFAULT_TASK_MAX_TOKENS),
        }


async def async_weigh(
    hass: HomeAssistant, info: Info, data: dict[str, Any], api_ids: list[str]
) -> tuple[list[str], dict[str, str]]:
    """Return the tools that there are, and what prompts with all or only the control tools would cost."""
    system, offered, serializer = await async_constant_part(hass, data, api_ids)
    numbers = {"context_tokens": str(context_tokens(info, data)), "tools": str(len(offered))}
    for choice in (TOOLS_ALL, TOOLS_CONTROL):
        chosen = choose_tools(offered, choice, ())
        numbers[f"{choice}_tools"] = str(len(chosen))
        numbers[f"{choice}_tokens"] = str(prompt_tokens(system, format_tools(chosen, serializer)))
    return sorted(tool.name for tool in offered), numbers
