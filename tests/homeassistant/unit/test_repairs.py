"""The promise of `repairs.py`: a fix that has nothing left to fix says so."""

import pytest
from custom_components.rkllm_mqtt.repairs import async_create_fix_flow


@pytest.fixture
def fix(hass, loaded):
    async def make(**data):
        flow = await async_create_fix_flow(hass, "id", {"entry_id": loaded.entry_id, **data})
        flow.hass = hass
        flow.flow_id, flow.handler, flow.context = "f", "rkllm_mqtt", {}
        return flow

    return make


async def test_a_removed_agent_needs_no_model(fix):
    result = await (await fix(subentry_id="gone")).async_step_init()
    assert result["reason"] == "agent_removed"


async def test_a_daemon_that_is_away_cannot_say_its_models(hass, loaded, fix):
    await hass.config_entries.async_unload(loaded.entry_id)
    result = await (await fix(subentry_id="gone")).async_step_init()
    assert result["reason"] == "entry_not_loaded"
