"""The promise of `client.py`: a request always ends, and a daemon that lost one is told to drop it."""

import asyncio
import json

import pytest
from board import Board, golden
from conftest import make_entry, speech
from custom_components.rkllm_mqtt import client
from homeassistant.components import mqtt
from homeassistant.config_entries import ConfigEntryState
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.dispatcher import async_dispatcher_send


async def test_topics_are_subscribed_once_at_the_start(hass, board, loaded, ask, mqtt_mock):
    for kind in ("reply", "delta", "event"):
        assert board.subscribed(f"client/homeassistant/{kind}/+")
    before = mqtt_mock.async_subscribe.call_count
    task = ask("hello")
    (await board.request()).final("Hello.")
    await task
    assert mqtt_mock.async_subscribe.call_count == before


async def test_what_is_late_repeated_lost_or_out_of_order_changes_nothing(board, loaded, ask):
    task = ask("hello")
    asked = await board.request()
    asked.delta(2, "c")
    asked.event("started")
    asked.delta(0, "a")
    asked.delta(0, "a")
    asked.event("accepted")
    asked.delta(4, "e")
    asked.final("abcde")
    asked.delta(3, "d")
    asked.final("something else")
    assert speech(await task) == "abcde"


async def test_an_answer_to_nobody_is_counted_and_ignored(board, loaded):
    board.say("client/homeassistant/reply/unknown", golden("final"))
    board.say("client/homeassistant/delta/unknown", golden("delta"))
    assert loaded.runtime_data.counters.unknown_ids == 2


async def test_deltas_and_events_that_cannot_be_read_are_ignored(board, loaded, ask):
    task = ask("hello")
    asked = await board.request()
    board.say(f"client/homeassistant/delta/{asked.id}", "{not json")
    board.say(f"client/homeassistant/event/{asked.id}", "[]")
    asked.final("Hello.")
    assert speech(await task) == "Hello."
    assert loaded.runtime_data.counters.unreadable == 2


async def test_a_final_that_cannot_be_read_ends_the_question(board, loaded, ask):
    task = ask("hello")
    asked = await board.request()
    board.say(f"client/homeassistant/reply/{asked.id}", "{not json")
    assert "could not be read" in speech(await task)


async def test_a_new_attempt_that_contradicts_what_was_said_ends_the_answer(board, loaded, ask):
    task = ask("hello")
    asked = await board.request()
    asked.delta(0, "It is on")
    asked.event("restarted", attempt=2, from_seq=0)
    asked.delta(0, "It was never", attempt=2)
    result = await task
    assert speech(result).startswith("It is on … Sorry")
    await board.until(lambda: board.published("cancel"))


async def test_a_stopped_dialog_cancels_its_request(hass, board, loaded, ask):
    task = ask("a long story")
    asked = await board.request()
    asked.delta(0, "Once ")
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await board.until(lambda: board.published("cancel"))
    assert [request_id for request_id, _ in board.published("cancel")] == [asked.id]


@pytest.mark.parametrize(
    ("message", "words"),
    [(("status", "offline"), "lost"), (("info", golden("info") | {"boot_id": "another"}), "restarted")],
)
async def test_a_daemon_that_is_gone_ends_the_question_and_is_told_later(board, loaded, ask, message, words):
    task = ask("hello")
    asked = await board.request()
    board.say(*message)
    assert words in speech(await task)
    board.come_up()
    await board.until(lambda: board.published("cancel"))
    assert board.published("cancel")[0][0] == asked.id


async def test_a_lost_connection_ends_the_question_at_once(hass, board, loaded, ask):
    task = ask("hello")
    asked = await board.request()
    async_dispatcher_send(hass, "mqtt_connection_state", False)
    assert "broker" in speech(await task)
    assert board.published("cancel") == []
    assert "broker" in speech(await ask("again"))
    async_dispatcher_send(hass, "mqtt_connection_state", True)
    assert "offline" in speech(await ask("before its status is known"))
    board.come_up()
    await board.until(lambda: board.published("cancel"))
    assert board.published("cancel")[0][0] == asked.id


async def test_no_more_cancels_are_kept_than_a_daemon_could_want(monkeypatch, board, loaded, ask):
    monkeypatch.setattr(client, "_MAX_PENDING_CANCELS", 2)
    tasks = [ask(f"question {number}") for number in range(4)]
    await board.request(3)
    board.say("status", "offline")
    await asyncio.gather(*tasks)
    board.say("status", "online")
    await board.until(lambda: len(board.published("cancel")) == 2)


async def test_a_request_that_nobody_hears_is_sent_again_and_given_up(monkeypatch, board, loaded, ask):
    monkeypatch.setattr(client, "RESEND_S", 0.02)
    monkeypatch.setattr(client, "FIRST_SIGN_S", 0.1)
    result = await ask("hello")
    assert "does not answer" in speech(result)
    first, second = board.published("request")
    assert first == second
    await board.until(lambda: board.published("cancel"))


async def test_while_something_runs_silence_means_that_the_daemon_is_gone(monkeypatch, board, loaded, ask):
    monkeypatch.setattr(client, "QUIET_S", 0.05)
    task = ask("hello")
    asked = await board.request()
    asked.event("accepted")
    board.say("queue", golden("queue"))
    assert "lost" in speech(await task)


async def test_while_nothing_runs_a_request_may_wait(monkeypatch, board, loaded, ask):
    monkeypatch.setattr(client, "QUIET_S", 0.02)
    task = ask("hello")
    asked = await board.request()
    asked.event("accepted")
    board.say("queue", golden("queue") | {"running": [], "state": "paused"})
    await asyncio.sleep(0.1)
    assert not task.done()
    asked.final("Hello.")
    assert speech(await task) == "Hello."


async def test_the_total_time_is_bounded(monkeypatch, board, loaded, ask):
    monkeypatch.setattr("custom_components.rkllm_mqtt.conversation.TOTAL_S", 0.05)
    task = ask("hello")
    (await board.request()).event("accepted")
    assert "too long" in speech(await task)


async def test_a_publish_that_fails_ends_the_question(monkeypatch, board, loaded, ask):
    async def refuse(*_args, **_kwargs):
        raise HomeAssistantError("no")

    monkeypatch.setattr(mqtt, "async_publish", refuse)
    assert "broker" in speech(await ask("hello"))


async def test_unloading_ends_what_is_in_flight(hass, board, loaded, ask):
    task = ask("hello")
    asked = await board.request()
    assert await hass.config_entries.async_unload(loaded.entry_id)
    assert "stopped" in speech(await task)
    await board.until(lambda: board.published("cancel"))
    assert board.published("cancel")[0][0] == asked.id
    assert not board.subscribed("client/homeassistant/reply/+")


async def test_two_daemons_are_told_apart(hass, mqtt_mock, board, loaded, ask):
    other = Board(hass, mqtt_mock, "rkllm/rock6")
    other.info["uid"] = "other"
    entry = make_entry(node="rkllm/rock6", uid="other")
    assert await other.setup(entry)
    second = next(s for s in hass.states.async_entity_ids("conversation") if s.endswith("_2"))
    one, two = ask("to the first"), ask("to the second", agent=second)
    first_asked, second_asked = await board.request(), await other.request()
    assert first_asked.body["messages"][-1]["content"] == "to the first"
    second_asked.final("second")
    first_asked.final("first")
    assert [speech(await one), speech(await two)] == ["first", "second"]
    board.say("status", "offline")
    await hass.async_block_till_done()
    assert hass.states.get(second).state != "unavailable"


async def test_a_daemon_that_was_never_there_is_tried_again_later(monkeypatch, hass, entry):
    monkeypatch.setattr(client, "INFO_S", 0.02)
    entry.add_to_hass(hass)
    assert not await hass.config_entries.async_setup(entry.entry_id)
    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert "rkllm/rock5/info" in entry.reason


async def test_an_info_that_cannot_be_read_changes_nothing(board, loaded):
    board.say("info", "{")
    assert loaded.runtime_data.available
    assert loaded.runtime_data.known.node == "rock5"


async def test_the_request_is_compact_json_with_an_id_in_the_topic(board, loaded, ask, mqtt_mock):
    task = ask("grüß")
    asked = await board.request()
    (call,) = [c for c in mqtt_mock.async_publish.call_args_list if "/request/" in c.args[0]]
    assert call.args[2:4] == (1, False)
    assert "grüß" in call.args[1]
    assert json.dumps(json.loads(call.args[1]), ensure_ascii=False, separators=(",", ":")) == call.args[1]
    asked.final("ok")
    await task
