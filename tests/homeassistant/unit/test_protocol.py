"""The promise of `protocol.py`: every message that the daemon's own tests keep true is understood."""

import json

import pytest
from board import WIRE, golden
from custom_components.rkllm_mqtt.protocol import (
    is_client,
    parse_delta,
    parse_event,
    parse_final,
    parse_info,
    parse_running,
)

NAMES = sorted(path.stem for path in WIRE.glob("*.json"))
EVENTS = {
    *("accepted", "rejected", "position", "started", "progress", "restarted", "cancel_unknown"),
    "rate_limited",
}
FINALS = [name for name in NAMES if golden(name).get("object") == "chat.completion"]


def test_a_model_with_a_fault_is_not_served():
    members = golden("info")
    broken = {**members["models"][0], "id": "broken", "fault": {"message": "is empty", "hint": "Copy it."}}
    members["models"] = [broken, *members["models"]]
    info = parse_info(json.dumps(members))
    assert info.model("broken") is None
    assert info.default_model.id == "qwen3-1.7b"
    members["models"] = [{**broken, "fault": "odd"}, "no model"]
    assert parse_info(json.dumps(members)) is None


def test_the_info_of_the_daemon_is_understood():
    info = parse_info(json.dumps(golden("info")))
    assert (info.uid, info.node, info.base, info.major) == (
        "61a2f9093fba426384687a07cae5e5f4",
        "rock5",
        "rkllm",
        "1",
    )
    assert (info.platform, info.driver, info.runtime, info.simulated) == ("RK3588", "0.9.8", "1.2.3", False)
    assert info.default_model.id == "qwen3-1.7b"
    assert info.model(None) is info.default_model
    assert info.model("qwen3-1.7b").context_tokens == 4096
    assert info.model("gone") is None
    assert "stream" in info.features


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_every_event_of_the_daemon_is_understood(name):
    message = golden(name)
    event = parse_event(json.dumps(message))
    assert event.type == message["type"]
    assert event.position == message.get("position")
    assert event.attempt == message.get("attempt", 0)
    assert event.from_seq == message.get("from_seq", 0)


def test_there_is_no_event_that_we_do_not_know():
    assert {golden(name)["type"] for name in NAMES if "type" in golden(name)} == EVENTS


@pytest.mark.parametrize("name", FINALS)
def test_every_outcome_of_the_daemon_is_understood(name):
    message = golden(name)
    final = parse_final(json.dumps(message).encode())
    assert final.text == (message["text"] or "")
    assert final.truncated == message["truncated"]
    assert (final.error is None) == (message["status"] == "ok")
    assert final.usage["prompt_tokens"] == message["usage"]["prompt_tokens"]
    assert len(final.tool_calls) == len(message["tool_calls"])
    if final.error:
        assert final.error.code == message["error"]["code"]


def test_deltas_and_the_queue_are_understood():
    text, thinking = golden("delta"), golden("delta_thinking")
    assert parse_delta(json.dumps(text)).text == text["text"]
    assert parse_delta(json.dumps(thinking)).thinking == thinking["thinking"]
    assert parse_running(json.dumps(golden("queue"))) is True
    assert parse_running(json.dumps(golden("queue") | {"running": []})) is False


HOSTILE = ["", "x", "[]", "1", "null", "{}", '{"a":', '{"attempt": "x"}', "[" * 100_000, '{"type": 5}']


@pytest.mark.parametrize("payload", HOSTILE)
@pytest.mark.parametrize("parse", [parse_info, parse_delta, parse_event, parse_final, parse_running])
def test_what_is_no_message_is_none(parse, payload):
    assert parse(payload) is None


@pytest.mark.parametrize(
    "change",
    [
        {"node": "UPPER"},
        {"node": "a/b"},
        {"base": "a b"},
        {"base": ""},
        {"uid": 5},
        {"models": [5]},
        {"models": 7},
        {"runtime": "x"},
        {"x": "y" * 70_000},
    ],
)
def test_an_info_that_could_mislead_is_none(change):
    assert parse_info(json.dumps(golden("info") | change)) is None


def test_an_info_of_a_later_minor_version_with_more_members_is_understood():
    info = parse_info(json.dumps(golden("info") | {"schema": "1.7", "new": {"a": 1}, "features": ["new"]}))
    assert info.major == "1"


def test_a_final_with_members_of_another_type_is_none():
    assert parse_final(json.dumps(golden("final") | {"text": None})) is None
    assert parse_final(json.dumps(golden("final") | {"tool_calls": [5]})) is None


@pytest.mark.parametrize(
    ("name", "good"), [("a.b-c_1", True), ("", False), ("a/b", False), ("a" * 65, False)]
)
def test_a_client_is_one_level(name, good):
    assert is_client(name) is good
