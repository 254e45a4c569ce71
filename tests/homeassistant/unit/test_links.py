"""The promise of `links.py`: agents hang below the daemon's own device, whenever that appears."""

from homeassistant.config_entries import ConfigEntryState
from homeassistant.helpers import device_registry as dr
from pytest_homeassistant_custom_component.common import MockConfigEntry


def discover(hass, node="rock5"):
    entry = MockConfigEntry(domain="mqtt")
    entry.add_to_hass(hass)
    return dr.async_get(hass).async_get_or_create(
        config_entry_id=entry.entry_id, identifiers={("mqtt", f"rkllm_{node}")}
    )


def links(hass, entry):
    devices = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert len(devices) == 2
    return {device.via_device_id for device in devices}


async def test_agents_are_linked_to_a_device_that_was_there(hass, board, entry):
    device = discover(hass)
    assert await board.setup(entry)
    assert links(hass, entry) == {device.id}


async def test_agents_are_linked_when_the_device_is_discovered(hass, board, loaded):
    assert links(hass, loaded) == {None}
    discover(hass, "another")
    await hass.async_block_till_done()
    assert links(hass, loaded) == {None}
    device = discover(hass)
    await hass.async_block_till_done()
    assert links(hass, loaded) == {device.id}


async def test_after_the_entry_is_unloaded_nothing_is_linked(hass, board, loaded):
    assert await hass.config_entries.async_unload(loaded.entry_id)
    assert loaded.state is ConfigEntryState.NOT_LOADED
    discover(hass)
    await hass.async_block_till_done()
    assert links(hass, loaded) == {None}
