"""Node-RED, headless, with the flow that a person can import from flows.json."""

import json

import pytest
from live_client import PATIENCE_S

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def answers(node_red):
    """Ask the same through both halves of the flow; return what came back, by the end of its topic."""
    watcher, lab = node_red
    # Retained: it waits for Node-RED to start and to subscribe.
    watcher.publish(f"{lab}/ask", "story 60 tokens", retain=True)
    arrived = {
        end: watcher.wait(lambda m, end=end: m.json["topic"].endswith(end), 2 * PATIENCE_S).json
        for end in ("/reply", "/answers/flow")
    }
    watcher.publish(f"{lab}/ask", b"", retain=True)
    final = json.loads(arrived["/answers/flow"]["payload"])
    deltas = watcher.wait_many(lambda m: m.json["topic"].endswith("/delta"), final["deltas"])
    event = watcher.wait(lambda m: m.json["topic"].endswith("/event"))
    return {**arrived, "/event": event.json, "/delta": [delta.json for delta in deltas]}


def test_node_red_streams_to_its_response_topic(answers):
    final = json.loads(answers["/answers/flow"]["payload"])
    assert (final["id"], final["status"]) == ("flow", "ok")
    assert final["usage"]["completion_tokens"] == 60
    deltas = [json.loads(delta["payload"]) for delta in answers["/delta"]]
    assert [delta["seq"] for delta in deltas] == list(range(final["deltas"]))
    assert "".join(delta["text"] for delta in deltas) == final["text"] != ""


def test_correlation_data_and_user_properties_of_node_red_come_back_on_every_answer(answers):
    for message in (answers["/answers/flow"], answers["/event"], *answers["/delta"]):
        assert message["correlationData"] == "00ff2a"
        assert message["userProperties"] == {"x-room": "kitchen"}


def test_node_red_on_3_1_1_gets_bare_text(answers):
    final = json.loads(answers["/answers/flow"]["payload"])
    assert answers["/reply"] == {"topic": answers["/reply"]["topic"], "payload": final["text"]}
