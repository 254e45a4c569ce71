"""The promise of `diagnostics.py` and `system_health.py`: facts for a report, and no words of people."""

import json

from conftest import make_entry, speech
from custom_components.rkllm_mqtt.diagnostics import async_get_config_entry_diagnostics
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import get_system_health_info


async def test_diagnostics_hold_facts_and_no_content(hass, board, ask):
    entry = make_entry(agent={"prompt": "My secret instructions."})
    assert await board.setup(entry)
    task = ask("my private question")
    (await board.request()).final("a private answer")
    assert speech(await task) == "a private answer"
    task = ask("another")
    (await board.request(1)).fail("queue_full")
    await task
    facts = await async_get_config_entry_diagnostics(hass, entry)
    text = json.dumps(facts)
    assert "private" not in text
    assert "secret" not in text
    assert facts["entry"]["client"] == "**REDACTED**"
    assert facts["available"] is True
    assert facts["mqtt_connected"] is True
    assert facts["info"]["schema"] == "1.0"
    assert facts["info"]["models"][0]["id"] == "qwen3-1.7b"
    assert facts["counters"]["requests"] == 2
    assert facts["counters"]["answers"] == 1
    assert facts["counters"]["failures"] == {"queue_full": 1}
    assert facts["counters"]["last_usage"]["cached_tokens"] == 210


async def test_the_system_health_counts_daemons(hass, board, loaded):
    assert await async_setup_component(hass, "system_health", {})
    await hass.async_block_till_done()
    assert await get_system_health_info(hass, "rkllm_mqtt") == {
        "daemons": 1,
        "available": 1,
        "versions": "0.1.0",
        "requests": 0,
        "failures": 0,
    }
