"""The promise of `response_format` over MQTT: JSON of the asked shape, one correction, or an honest error."""

import json

import pytest
from live_client import Client

SCHEMA = {
    "type": "object",
    "properties": {"room": {"type": "string"}, "celsius": {"type": "number"}},
    "required": ["room", "celsius"],
    "additionalProperties": False,
}
SHAPE = {"type": "json_schema", "json_schema": {"name": "reading", "schema": SCHEMA}}


ANSWERS = {
    "fenced": ('Here:\n```json\n{"room": "Küche", "celsius": 21}\n```', ""),
    "mends": ('{"room": 5}', '{"room": "kitchen", "celsius": 21.5}'),
    "stays": ("It is warm.", '{"room": "kitchen", "celsius": "warm"}'),
    "plain": ('{"warm": true}', ""),
}
"""By a word of the question: what the model says, and what when it is told to correct that."""


@pytest.fixture(scope="module")
def daemon(online, shared_broker, tmp_path_factory):
    """A daemon whose model gives these answers; a rule sees the last message only."""
    file = tmp_path_factory.mktemp("model") / "model.sim"
    rules = []
    for word, (first, second) in ANSWERS.items():
        problem = {"mends": "5 is not of", "stays": "no JSON"}.get(word)
        if problem:
            rules.append(f'when "{problem}": reply {json.dumps(second, ensure_ascii=False)}')
        rules.append(f'when "{word}": reply {json.dumps(first, ensure_ascii=False)}')
    file.write_text("\n".join(["rkllm-simulator 1", "profile: instant", *rules, ""]))
    with online("format", models=[{"id": "m", "file": str(file)}]) as made:
        watcher = Client(shared_broker.port).subscribe(f"rkllm/{made.node}/#")
        yield made, watcher
        watcher.close()


@pytest.fixture
def ask(daemon, request):
    """Ask for the shape; return the final and the kinds of the events."""

    def asking(word, **fields):
        made, watcher = daemon
        box = made.client(f"c{abs(hash(request.node.name))}")
        asked = {"prompt": f"How warm is it? {word}", "response_format": SHAPE, "stream": True, **fields}
        watcher.publish(f"{box}/request/q1", asked)
        final = watcher.reply(f"{box}/reply/q1").json
        assert not watcher.on(f"{box}/delta/q1")
        events = [message.json["type"] for message in watcher.on(f"{box}/event/q1")]
        return final, [event for event in events if event != "position"]

    return asking


def test_a_valid_answer_is_given_as_it_is_without_its_fence(ask):
    final, events = ask("fenced")
    assert (final["text"], final["status"]) == ('{"room": "Küche", "celsius": 21}', "ok")
    assert (final["finish_reason"], final["attempt"], final["deltas"]) == ("stop", 1, 0)
    assert events == ["accepted", "started"]


def test_an_invalid_answer_is_corrected_by_a_second_run(ask):
    final, events = ask("mends")
    assert json.loads(final["text"]) == {"room": "kitchen", "celsius": 21.5}
    assert (final["status"], final["attempt"]) == ("ok", 2)
    assert events == ["accepted", "started", "restarted", "started"]


def test_an_answer_that_stays_invalid_is_an_error_that_says_why(ask):
    final, _ = ask("stays")
    assert (final["error"]["code"], final["finish_reason"], final["attempt"]) == (
        "invalid_output",
        "error",
        2,
    )
    assert "'warm' is not of type 'number'" in final["error"]["message"]
    assert final["text"] == '{"room": "kitchen", "celsius": "warm"}'


def test_an_answer_that_was_cut_off_is_not_mended_into_a_wrong_one(ask):
    final, _ = ask("fenced", max_tokens=9)
    assert (final["error"]["code"], final["attempt"]) == ("invalid_output", 1)
    assert "length" in final["error"]["message"]
    assert final["text"].startswith("Here:")


def test_any_object_will_do_where_no_schema_is_given(ask):
    final, _ = ask("plain", response_format={"type": "json_object"})
    assert final["text"] == '{"warm": true}'


def test_a_schema_that_is_refused_computes_nothing(ask):
    schema = {"type": "string", "pattern": "^(a+)+$"}
    final, events = ask("plain", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert final["error"]["code"] == "invalid_request"
    assert final["error"]["hint"]
    assert events == ["rejected"]
