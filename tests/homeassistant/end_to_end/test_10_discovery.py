"""The device that the daemon shows by MQTT discovery, in the real Home Assistant."""

import time

import pytest

DEVICE = "rkllm_board"
ALL = {
    *("status", "generating", "queue_length", "running_client", "tokens_per_s", "time_to_first_token"),
    *("cache_hit_share", "problem", "npu_load", "npu_frequency", "npu_temperature", "disk_free"),
    *("prefix", "worker_restarts", "prompt", "answer", "cancel", "pause", "resume", "model"),
}


async def entity_ids(house):
    return {
        entity["unique_id"].removeprefix(f"{DEVICE}_"): entity_id
        for entity_id, entity in (await house.entities("mqtt")).items()
        if entity["unique_id"].startswith(f"{DEVICE}_")
    }


@pytest.fixture(scope="session")
async def ids(house):
    async def complete():
        found = await entity_ids(house)
        return found if found.keys() >= ALL else None

    return await house.until(complete)


async def test_the_daemon_shows_itself_as_one_device(house, ids):
    devices = await house.socket.call("config/device_registry/list")
    (device,) = [each for each in devices if ["mqtt", DEVICE] in each["identifiers"]]
    assert (device["name"], device["manufacturer"]) == ("RKLLM board", "rkllm-mqtt")
    assert device["model"] == "Simulated NPU"
    assert set(ids) == ALL


async def state_becomes(house, entity_id, wanted, within_s=1.0):
    began = time.monotonic()

    async def holds():
        return await house.state(entity_id) == wanted

    await house.until(holds)
    return time.monotonic() - began


async def test_every_entity_has_its_state(house, ids):
    assert await state_becomes(house, ids["status"], "idle")
    for key, wanted in {
        "generating": "off",
        "queue_length": "0",
        "running_client": "none",
        "problem": "off",
        "model": "house",
    }.items():
        assert await house.state(ids[key]) == wanted, key
    for key in ("npu_frequency", "disk_free", "prefix", "worker_restarts"):
        assert await house.state(ids[key]) is None, "disabled by default"


async def test_a_prompt_by_the_notify_entity_is_answered_by_the_event_entity(house, ids):
    await house.service("notify.send_message", entity_id=ids["prompt"], message="say: hello from a sensor")

    async def answered():
        state = await house.get(f"/api/states/{ids['answer']}")
        return state if state["attributes"].get("event_type") == "answer" else None

    answer = await house.until(answered)
    assert answer["attributes"]["text"] == "hello from a sensor"
    for key in ("tokens_per_s", "time_to_first_token"):
        assert await house.until(lambda key=key: positive(house, ids[key]), 5)


async def positive(house, entity_id):
    state = await house.state(entity_id)
    return state not in ("unknown", "unavailable") and float(state) > 0


async def test_the_states_follow_within_a_second(house, ids, watcher):
    def length(wanted):
        return lambda m: m.topic == "rkllm/board/queue" and m.json["state"] == wanted

    for button, state in (("pause", "paused"), ("resume", "idle")):
        seen = len(watcher.messages)
        await house.service("button.press", entity_id=ids[button])
        assert await state_becomes(house, ids["status"], state) < 1.5
        assert any(length(state)(message) for message in watcher.messages[seen:])


async def test_what_runs_is_seen_and_can_be_cancelled(house, ids, watcher):
    box = "rkllm/board/client/sensor"
    watcher.publish(f"{box}/request/long", {"prompt": "story 3000 tokens", "max_tokens": 4000})
    await state_becomes(house, ids["generating"], "on")
    assert await house.state(ids["running_client"]) == "sensor"
    await house.service("button.press", entity_id=ids["cancel"])
    assert watcher.reply(f"{box}/reply/long").json["finish_reason"] == "cancelled"
    await state_becomes(house, ids["generating"], "off")


async def test_the_model_can_be_chosen(house, ids):
    for model in ("small", "house"):
        await house.service("select.select_option", entity_id=ids["model"], option=model)
        await state_becomes(house, ids["model"], model)


async def test_all_go_unavailable_with_the_daemon_and_come_back(house, ids, daemon, watcher):
    daemon.stop()
    on = [key for key in ids if key not in ("npu_frequency", "disk_free", "prefix", "worker_restarts")]
    for key in on:
        await state_becomes(house, ids[key], "unavailable")
    daemon.start(watcher)
    await state_becomes(house, ids["status"], "idle")
    for key in on:
        assert await house.state(ids[key]) != "unavailable", key
