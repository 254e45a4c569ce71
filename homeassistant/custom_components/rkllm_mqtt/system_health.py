"""A line about each daemon in Home Assistant's system information."""

from typing import Any

from homeassistant.components.system_health import SystemHealthRegistration
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant, callback

from .const import DOMAIN
from .entity import RkllmConfigEntry


@callback
def async_register(hass: HomeAssistant, register: SystemHealthRegistration) -> None:
    """Offer our facts."""
    register.async_register_info(_facts)


async def _facts(hass: HomeAssistant) -> dict[str, Any]:
    entries: list[RkllmConfigEntry] = hass.config_entries.async_entries(DOMAIN)
    loaded = [entry.runtime_data for entry in entries if entry.state is ConfigEntryState.LOADED]
    return {
        "daemons": len(entries),
        "available": sum(client.available for client in loaded),
        "versions": ", ".join(sorted({client.known.version for client in loaded})) or None,
        "requests": sum(client.counters.requests for client in loaded),
        "failures": sum(sum(client.counters.failures.values()) for client in loaded),
    }
