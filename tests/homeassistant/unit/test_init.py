"""The promise of `__init__.py` and `issues.py`: entries load, say what is wrong, and leave nothing behind."""

import logging

from board import golden
from conftest import make_entry
from custom_components.rkllm_mqtt.const import DOMAIN
from homeassistant.components import mqtt
from homeassistant.config_entries import ConfigEntryState
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component

UID = golden("info")["uid"]


def issues(hass):
    return {
        issue.translation_key for (domain, _), issue in ir.async_get(hass).issues.items() if domain == DOMAIN
    }


async def test_each_agent_and_task_is_a_device(hass, board, loaded):
    devices = dr.async_entries_for_config_entry(dr.async_get(hass), loaded.entry_id)
    assert {device.name for device in devices} == {"Agent", "Task"}
    assert {device.model for device in devices} == {"qwen3-1.7b"}
    entities = er.async_entries_for_config_entry(er.async_get(hass), loaded.entry_id)
    assert {entity.domain for entity in entities} == {"conversation", "ai_task"}


async def test_an_entry_unloads_and_loads_again(hass, board, loaded):
    assert await hass.config_entries.async_unload(loaded.entry_id)
    assert loaded.state is ConfigEntryState.NOT_LOADED
    assert not board.subscribed("info")
    assert await board.setup(loaded)
    assert hass.states.get("conversation.agent").state != "unavailable"


async def test_without_mqtt_the_entry_is_tried_again_later(hass, entry, monkeypatch):
    async def absent(_hass):
        return False

    monkeypatch.setattr(mqtt, "async_wait_for_mqtt_client", absent)
    entry.add_to_hass(hass)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY


async def test_a_daemon_of_another_protocol_is_refused_with_an_issue(hass, board, entry):
    board.info["schema"] = "2.0"
    assert not await board.setup(entry)
    assert entry.state is ConfigEntryState.SETUP_ERROR
    assert issues(hass) == {"protocol_mismatch"}
    assert not board.subscribed("status")
    board.info["schema"] = "1.1"
    await hass.config_entries.async_unload(entry.entry_id)
    assert await board.setup(entry)
    assert issues(hass) == set()


async def test_a_daemon_that_is_updated_to_another_protocol_is_left(hass, board, loaded):
    board.come_up(schema="2.0")
    await board.until(lambda: loaded.state is not ConfigEntryState.LOADED)
    await board.until(lambda: board.subscribed("info"))
    board.come_up()
    await hass.async_block_till_done()
    assert loaded.state is ConfigEntryState.SETUP_ERROR
    assert issues(hass) == {"protocol_mismatch"}


async def test_a_model_that_is_gone_raises_an_issue_until_it_is_back(hass, board):
    assert await board.setup(make_entry(agent={"model": "qwen3-1.7b"}))
    models = board.info["models"]
    board.come_up(models=[models[0] | {"id": "another"}])
    assert issues(hass) == {"model_not_served"}
    board.come_up(models=models)
    assert issues(hass) == set()


async def test_a_changed_subentry_reloads_the_entry(hass, board, loaded):
    agent = next(iter(loaded.subentries.values()))
    hass.config_entries.async_update_subentry(loaded, agent, data={"prompt": "New."})
    await board.until(lambda: loaded.state is not ConfigEntryState.LOADED)
    await board.until(lambda: board.subscribed("info"))
    board.come_up()
    await hass.async_block_till_done()
    assert loaded.state is ConfigEntryState.LOADED


async def test_a_removed_agent_takes_its_issue_along(hass, board):
    entry = make_entry(agent={"model": "gone"})
    assert await board.setup(entry)
    assert issues(hass) == {"model_not_served"}
    agent = next(iter(entry.subentries.values()))
    hass.config_entries.async_remove_subentry(entry, agent.subentry_id)
    await board.until(lambda: entry.state is not ConfigEntryState.LOADED)
    await board.until(lambda: board.subscribed("info"))
    board.come_up()
    await hass.async_block_till_done()
    assert issues(hass) == set()


async def test_a_removed_entry_leaves_nothing_behind(hass, board):
    entry = make_entry(agent={"model": "gone"})
    assert await board.setup(entry)
    await hass.config_entries.async_remove(entry.entry_id)
    await hass.async_block_till_done()
    assert issues(hass) == set()
    assert not er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    assert not dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert not board.subscribed("info")


async def test_unavailability_is_logged_once_each_way(hass, board, loaded, caplog):
    caplog.set_level(logging.INFO, "custom_components.rkllm_mqtt")
    caplog.clear()
    for payload in ("offline", "offline", "online", "online"):
        board.say("status", payload)
    lines = [r.message for r in caplog.records if r.name.startswith("custom_components.rkllm_mqtt")]
    assert lines == ["rkllm/rock5 is unavailable", "rkllm/rock5 is available"]


async def test_the_agent_chooses_another_model_by_its_issue(hass, board, hass_client):
    assert await async_setup_component(hass, "repairs", {})
    entry = make_entry(agent={"model": "gone"})
    assert await board.setup(entry)
    (issue_id,) = [key for domain, key in ir.async_get(hass).issues if domain == DOMAIN]
    client = await hass_client()
    started = await client.post("/api/repairs/issues/fix", json={"handler": DOMAIN, "issue_id": issue_id})
    form = await started.json()
    assert form["step_id"] == "choose", form
    assert form["description_placeholders"] == {"agent": "Agent", "model": "gone"}
    path = f"/api/repairs/issues/fix/{form['flow_id']}"
    done = await (await client.post(path, json={"model": "qwen3-1.7b"})).json()
    assert done["type"] == "create_entry"
    await board.until(lambda: board.subscribed("info"))
    board.come_up()
    await hass.async_block_till_done()
    assert next(iter(entry.subentries.values())).data["model"] == "qwen3-1.7b"
