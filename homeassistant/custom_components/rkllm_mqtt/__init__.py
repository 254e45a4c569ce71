"""Use the language model on a Rockchip NPU, shared over MQTT by rkllm-mqtt, as agent and for AI tasks."""

from homeassistant.components import mqtt
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryError, ConfigEntryNotReady

from .client import RkllmClient
from .const import CONF_BASE, CONF_CLIENT, CONF_NODE, DOMAIN, ISSUE_PROTOCOL, PROTOCOL_MAJOR
from .entity import RkllmConfigEntry
from .exposure import async_watch_exposure
from .issues import async_check_models, async_check_protocol, async_clear_issues
from .links import async_link_devices
from .prefixes import async_unregister

PLATFORMS = (Platform.AI_TASK, Platform.CONVERSATION)


async def async_setup_entry(hass: HomeAssistant, entry: RkllmConfigEntry) -> bool:
    """Connect to the mailbox of one daemon."""
    if not await mqtt.async_wait_for_mqtt_client(hass):
        raise ConfigEntryNotReady(translation_domain=DOMAIN, translation_key="mqtt_unavailable")
    data = entry.data
    client = RkllmClient(hass, f"{data[CONF_BASE]}/{data[CONF_NODE]}", data[CONF_CLIENT])
    await client.async_start()
    if (mismatch := async_check_protocol(hass, entry, client.known)) is not None:
        client.async_stop()
        raise ConfigEntryError(
            translation_domain=DOMAIN, translation_key=ISSUE_PROTOCOL, translation_placeholders=mismatch
        )
    entry.runtime_data = client

    @callback
    def follow() -> None:
        async_check_models(hass, entry, client.known)
        if client.known.major != PROTOCOL_MAJOR:
            hass.config_entries.async_schedule_reload(entry.entry_id)

    follow()
    async_clear_issues(hass, entry, all_of_them=False)
    entry.async_on_unload(client.async_add_listener(follow))
    entry.async_on_unload(client.async_stop)
    entry.async_on_unload(entry.add_update_listener(_reload))
    entry.async_on_unload(async_watch_exposure(hass, entry))
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    entry.async_on_unload(async_link_devices(hass, entry))
    return True


async def async_unload_entry(hass: HomeAssistant, entry: RkllmConfigEntry) -> bool:
    """Leave the mailbox."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)


async def async_remove_entry(hass: HomeAssistant, entry: RkllmConfigEntry) -> None:
    """Take the issues of this entry away, and its prefixes from the daemon."""
    async_clear_issues(hass, entry, all_of_them=True)
    await async_unregister(hass, entry)


async def _reload(hass: HomeAssistant, entry: RkllmConfigEntry) -> None:
    hass.config_entries.async_schedule_reload(entry.entry_id)
