"""Show agents and AI tasks as connected by way of the daemon's own device, wherever that is known."""

from homeassistant.core import CALLBACK_TYPE, Event, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr

from .const import CONF_NODE
from .entity import RkllmConfigEntry


@callback
def async_link_devices(hass: HomeAssistant, entry: RkllmConfigEntry) -> CALLBACK_TYPE:
    """Link the devices of an entry now, and when the daemon's is discovered later; return what ends it.

    That device is made by MQTT discovery, under this name.
    """
    identifier = ("mqtt", f"rkllm_{entry.data[CONF_NODE]}")
    registry = dr.async_get(hass)

    @callback
    def link() -> None:
        owners = [each.entry_id for each in hass.config_entries.async_entries("mqtt")]
        found = (registry.async_get_device_by_identifier(identifier, owner) for owner in owners)
        if (board := next(filter(None, found), None)) is None:
            return
        for device in dr.async_entries_for_config_entry(registry, entry.entry_id):
            if device.via_device_id != board.id:
                registry.async_update_device(device.id, via_device_id=board.id)

    @callback
    def created(event: Event[dr.EventDeviceRegistryUpdatedData]) -> None:
        if event.data["action"] == "create":
            link()

    link()
    return hass.bus.async_listen(dr.EVENT_DEVICE_REGISTRY_UPDATED, created)
