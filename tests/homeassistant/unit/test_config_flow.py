"""The promise of `config_flow.py`: found or looked for, one entry for each daemon, and changed later."""

import json

import pytest
from board import golden
from conftest import make_entry
from custom_components.rkllm_mqtt.const import DOMAIN
from homeassistant.components import mqtt
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers.service_info.mqtt import MqttServiceInfo
from pytest_homeassistant_custom_component.common import async_fire_mqtt_message

from homeassistant import config_entries

UID = golden("info")["uid"]


def service_info(info, topic="rkllm/rock5/info"):
    payload = info if isinstance(info, str) else json.dumps(info)
    return MqttServiceInfo(topic, payload, 0, True, "rkllm/+/info", 0.0)


async def discover(hass, info, **more):
    return await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": config_entries.SOURCE_MQTT}, data=service_info(info, **more)
    )


async def finish(hass, board, flow, **answer):
    """Answer the last step, while the daemon says what it says."""
    result = await hass.config_entries.flow.async_configure(flow["flow_id"], answer)
    board.come_up()
    await hass.async_block_till_done()
    return result


async def test_a_daemon_found_on_the_broker_becomes_an_entry(hass, board):
    flow = await discover(hass, board.info)
    assert (flow["type"], flow["step_id"]) == (FlowResultType.FORM, "confirm")
    assert "rock5" in flow["description_placeholders"]["name"]
    result = await finish(hass, board, flow, client="homeassistant")
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["data"] == {"base": "rkllm", "node": "rock5", "client": "homeassistant"}
    assert result["result"].unique_id == UID
    kinds = {s.subentry_type: s for s in result["result"].subentries.values()}
    assert set(kinds) == {"conversation", "ai_task_data"}
    assert kinds["conversation"].data["llm_hass_api"] == ["assist"]


async def test_home_assistant_itself_hears_the_retained_info(hass, board, mqtt_mock):
    board.say("info", board.info, retain=True)
    await hass.async_block_till_done(wait_background_tasks=True)
    (flow,) = hass.config_entries.flow.async_progress()
    assert (flow["handler"], flow["context"]["source"]) == (DOMAIN, "mqtt")


async def test_an_agent_of_a_daemon_without_tools_begins_without_them(hass, board):
    board.info["features"] = ["chat"]
    flow = await discover(hass, board.info)
    result = await finish(hass, board, flow, client="homeassistant")
    agents = [s for s in result["result"].subentries.values() if s.subentry_type == "conversation"]
    assert "llm_hass_api" not in agents[0].data


async def test_a_client_name_that_is_none_is_asked_for_again(hass, board):
    flow = await discover(hass, board.info)
    again = await hass.config_entries.flow.async_configure(flow["flow_id"], {"client": "a/b"})
    assert again["errors"] == {"client": "invalid_client"}
    result = await finish(hass, board, again, client="ha")
    assert result["data"]["client"] == "ha"


@pytest.mark.parametrize(
    ("payload", "topic"),
    [("", "rkllm/rock5/info"), ("{", "rkllm/rock5/info"), (json.dumps(golden("info")), "rkllm/other/info")],
)
async def test_what_is_no_daemon_is_not_offered(hass, payload, topic):
    flow = await discover(hass, payload, topic=topic)
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "invalid_discovery_info")


async def test_a_daemon_of_another_protocol_is_not_offered(hass):
    flow = await discover(hass, golden("info") | {"schema": "2.0"})
    assert flow["reason"] == "unsupported_protocol"
    assert flow["description_placeholders"] == {"theirs": "2.0", "ours": "1.x"}


async def test_a_known_daemon_that_was_renamed_is_updated(hass, board, loaded):
    flow = await discover(hass, board.info | {"node": "rock7"}, topic="rkllm/rock7/info")
    assert flow["reason"] == "already_configured"
    assert loaded.data["node"] == "rock7"


async def start(hass, board, *infos):
    """Look for daemons, which answer while they are listened for."""
    task = hass.async_create_task(
        hass.config_entries.flow.async_init(DOMAIN, context={"source": config_entries.SOURCE_USER})
    )
    await board.until(lambda: hass.data["mqtt"].client.is_active_subscription("rkllm/+/info") or task.done())
    for info in infos:
        async_fire_mqtt_message(hass, f"rkllm/{info['node']}/info", json.dumps(info))
    return await task


async def test_daemons_are_looked_for_and_one_is_chosen(hass, board):
    other = board.info | {"node": "rock6", "uid": "u6"}
    flow = await start(hass, board, board.info, other, board.info | {"schema": "9.0", "uid": "u9"})
    assert flow["step_id"] == "user"
    confirm = await hass.config_entries.flow.async_configure(flow["flow_id"], {"node": UID})
    assert confirm["step_id"] == "confirm"
    result = await finish(hass, board, confirm, client="homeassistant")
    assert result["title"] == "RKLLM rock5"


async def test_a_daemon_that_is_set_up_is_not_offered_again(hass, board, loaded):
    flow = await start(hass, board, board.info)
    assert flow["reason"] == "no_devices_found"


async def test_without_mqtt_the_person_is_told_to_set_it_up(hass, mqtt_mock, monkeypatch):
    async def absent(_hass):
        return False

    monkeypatch.setattr(mqtt, "async_wait_for_mqtt_client", absent)
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": config_entries.SOURCE_USER})
    assert flow["reason"] == "mqtt_required"


async def test_the_mqtt_user_is_the_client_that_is_proposed(hass, board):
    entry = hass.config_entries.async_entries("mqtt")[0]
    hass.config_entries.async_update_entry(entry, data={**entry.data, "username": "house"})
    flow = await discover(hass, board.info)
    (field,) = flow["data_schema"].schema
    assert field.description == {"suggested_value": "house"}


async def reconfigure(hass, board, entry, *, says=None, **answer):
    flow = await entry.start_reconfigure_flow(hass)
    assert flow["step_id"] == "reconfigure"
    topic = f"{answer['base']}/{answer['node']}/info"
    task = hass.async_create_task(hass.config_entries.flow.async_configure(flow["flow_id"], answer))
    await board.until(lambda: hass.data["mqtt"].client.is_active_subscription(topic) or task.done())
    if says is not None:
        async_fire_mqtt_message(hass, topic, json.dumps(says))
    result = await task
    await hass.async_block_till_done()
    return result


async def test_the_client_and_the_topic_can_be_changed(hass, board, loaded):
    says = board.info | {"node": "rock8"}
    result = await reconfigure(hass, board, loaded, says=says, base="rkllm", node="rock8", client="ha")
    assert result["reason"] == "reconfigure_successful"
    assert loaded.data == {"base": "rkllm", "node": "rock8", "client": "ha"}


@pytest.mark.parametrize(
    ("answer", "says", "errors"),
    [
        ({"client": "a/b"}, None, {"client": "invalid_client"}),
        ({"node": "+"}, None, {"node": "invalid_topic"}),
        ({"node": "nobody"}, None, {"node": "no_answer"}),
        ({"node": "rock6"}, {"node": "rock6", "uid": "another"}, {"node": "another_daemon"}),
    ],
)
async def test_a_change_that_cannot_work_is_refused(hass, board, loaded, answer, says, errors):
    good = {"base": "rkllm", "node": "rock5", "client": "homeassistant"}
    says = says and board.info | says
    result = await reconfigure(hass, board, loaded, says=says, **(good | answer))
    assert result["errors"] == errors
    assert loaded.data == good


async def test_without_mqtt_nothing_can_be_changed(hass, loaded, monkeypatch):
    async def absent(_hass):
        return False

    monkeypatch.setattr(mqtt, "async_wait_for_mqtt_client", absent)
    flow = await loaded.start_reconfigure_flow(hass)
    assert flow["reason"] == "mqtt_required"


def test_entries_of_these_tests_are_like_those_of_the_flow():
    assert set(make_entry().data) == {"base", "node", "client"}
