"""The promise of `exposure.py`: a prompt that grows out of its model is noticed before somebody asks."""

import pytest
from conftest import make_entry
from custom_components.rkllm_mqtt import exposure
from custom_components.rkllm_mqtt.const import DOMAIN
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component


def issues(hass):
    return {i.translation_key for (domain, _), i in ir.async_get(hass).issues.items() if domain == DOMAIN}


@pytest.fixture
async def home(hass, board, monkeypatch):
    """Start a house whose agent has a short context."""
    monkeypatch.setattr(exposure, "COOLDOWN_S", 0.01)
    assert await async_setup_component(hass, "intent", {})
    board.info["models"][0]["context_tokens"] = 2048
    entry = make_entry(agent={"llm_hass_api": ["assist"], "tools": "control", "max_tokens": 100})

    def fill(*, exposed):
        for number in range(200):
            name = f"light.lamp_with_a_long_name_{number}"
            hass.states.async_set(name, "off", {"friendly_name": f"Lamp with a long name {number}"})
            async_expose_entity(hass, "conversation", name, exposed)

    return entry, fill


async def test_a_prompt_that_is_too_long_at_the_start_is_an_issue(hass, board, home):
    entry, fill = home
    fill(exposed=True)
    assert await board.setup(entry)
    assert issues(hass) == {"prompt_over_context"}


async def test_it_becomes_one_when_more_is_exposed_and_goes_when_less_is(hass, board, home):
    entry, fill = home
    fill(exposed=False)
    assert await board.setup(entry)
    assert issues(hass) == set()
    fill(exposed=True)
    await board.until(lambda: issues(hass))
    assert issues(hass) == {"prompt_over_context"}
    fill(exposed=False)
    await board.until(lambda: not issues(hass))


async def test_an_agent_that_only_talks_is_not_weighed(hass, board, home):
    _, fill = home
    fill(exposed=True)
    assert await board.setup(make_entry())
    assert issues(hass) == set()


async def test_after_the_entry_is_unloaded_nothing_is_weighed(hass, board, home):
    entry, fill = home
    fill(exposed=False)
    assert await board.setup(entry)
    assert await hass.config_entries.async_unload(entry.entry_id)
    fill(exposed=True)
    await hass.async_block_till_done(wait_background_tasks=True)
    assert issues(hass) == set()


async def test_an_entry_that_is_unloaded_while_it_is_weighed_is_left_alone(hass, board, home, caplog):
    entry, fill = home
    fill(exposed=True)
    assert await board.setup(entry)
    hass.async_create_task(hass.config_entries.async_unload(entry.entry_id))
    assert await board.setup(entry)
    assert await hass.config_entries.async_unload(entry.entry_id)
    await hass.async_block_till_done(wait_background_tasks=True)
    assert "Traceback" not in caplog.text
