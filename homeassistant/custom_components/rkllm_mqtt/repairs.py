"""Fix flows of our repair issues: choose another model for an agent whose model is gone."""

from typing import Any

import probatio
from homeassistant.components.repairs import RepairsFlow, RepairsFlowResult
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_MODEL
from homeassistant.core import HomeAssistant
from homeassistant.helpers.selector import SelectSelector, SelectSelectorMode


class ChooseModelFlow(RepairsFlow):
    """Choose one of the models that the daemon serves now."""

    def __init__(self, entry_id: str, subentry_id: str) -> None:
        """Keep which agent or AI task it is about."""
        super().__init__()
        self._entry_id = entry_id
        self._subentry_id = subentry_id

    async def async_step_init(self, user_input: dict[str, Any] | None = None) -> RepairsFlowResult:
        """Begin; what comes here is not an answer."""
        return await self.async_step_choose()

    async def async_step_choose(self, user_input: dict[str, Any] | None = None) -> RepairsFlowResult:
        """Ask for the model, and change the settings."""
        entry = self.hass.config_entries.async_get_entry(self._entry_id)
        if entry is None or entry.state is not ConfigEntryState.LOADED:
            return self.async_abort(reason="entry_not_loaded")
        subentry = entry.subentries.get(self._subentry_id)
        if subentry is None:
            return self.async_abort(reason="agent_removed")
        if user_input is not None:
            self.hass.config_entries.async_update_subentry(
                entry, subentry, data={**subentry.data, CONF_MODEL: user_input[CONF_MODEL]}
            )
            return self.async_create_entry(data={})
        models = [model.id for model in entry.runtime_data.known.models]
        selector = SelectSelector({"options": models, "mode": SelectSelectorMode.LIST})
        return self.async_show_form(
            step_id="choose",
            data_schema=probatio.Schema({probatio.Required(CONF_MODEL): selector}),
            description_placeholders={
                "agent": subentry.title,
                "model": str(subentry.data.get(CONF_MODEL)),
            },
        )


async def async_create_fix_flow(
    hass: HomeAssistant, issue_id: str, data: dict[str, str | int | float | None] | None
) -> RepairsFlow:
    """Return the flow of an issue; only the one about a model can be fixed here."""
    data = data or {}
    return ChooseModelFlow(str(data["entry_id"]), str(data["subentry_id"]))
