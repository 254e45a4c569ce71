"""MQTT.js, the client of browsers, Node.js and Node-RED."""

import json

import pytest

pytestmark = pytest.mark.clients


def test_mqttjs_streams_to_its_response_topic_and_gets_its_properties_back_on_every_answer(mqttjs, served):
    box = served[1]
    seen = json.loads(mqttjs("stream", box, "story 60 tokens"))
    final = json.loads(seen["final"]["payload"])
    assert (final["id"], final["status"]) == ("js", "ok")
    assert final["usage"]["completion_tokens"] == 60
    deltas = [json.loads(delta["payload"]) for delta in seen["deltas"]]
    assert [delta["seq"] for delta in deltas] == list(range(final["deltas"]))
    assert "".join(delta["text"] for delta in deltas) == final["text"] != ""
    assert json.loads(seen["events"][0]["payload"])["type"] == "accepted"
    for message in [seen["final"], *seen["deltas"], *seen["events"]]:
        assert message["correlationData"] == "00ff2a"
        assert message["userProperties"] == {"x-room": "kitchen"}


def test_mqttjs_on_3_1_1_gets_bare_text_and_nothing_else(mqttjs, served):
    watcher, box = served
    seen = json.loads(mqttjs("text", box, "guten Morgen, Küche"))
    assert seen["final"]["payload"] == "You said: guten Morgen, Küche"
    assert watcher.reply(f"{box}/reply").payload.decode() == seen["final"]["payload"]
    assert not watcher.on(f"{box}/event")
