"""What a bug report needs: facts and counters, never prompts, answers or names of people."""

from dataclasses import asdict
from typing import Any

from homeassistant.components import mqtt
from homeassistant.components.diagnostics import async_redact_data
from homeassistant.const import CONF_PROMPT
from homeassistant.core import HomeAssistant

from .const import CONF_CLIENT
from .entity import RkllmConfigEntry

TO_REDACT = {CONF_CLIENT, CONF_PROMPT}


async def async_get_config_entry_diagnostics(hass: HomeAssistant, entry: RkllmConfigEntry) -> dict[str, Any]:
    """Return the facts of one daemon and of our use of it."""
    client = entry.runtime_data
    info = asdict(client.known)
    info["features"] = sorted(info["features"])
    for model in info["models"]:
        model["capabilities"] = sorted(model["capabilities"])
    return {
        "entry": async_redact_data(dict(entry.data), TO_REDACT),
        "subentries": [
            {"type": subentry.subentry_type, "data": async_redact_data(dict(subentry.data), TO_REDACT)}
            for subentry in entry.subentries.values()
        ],
        "available": client.available,
        "mqtt_connected": mqtt.is_connected(hass),
        "info": info,
        "counters": asdict(client.counters),
    }
