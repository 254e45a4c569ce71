"""Promises to a client that registers the beginning of its prompts and announces its questions."""

import json

import pytest

SYSTEM = {"role": "system", "content": "You are the voice of a house. " + "The lamp is on. " * 40}
TOOL = {"type": "function", "function": {"name": "turn_on", "parameters": {"type": "object"}}}
VOICE = {"register": "voice", "messages": [SYSTEM], "tools": [TOOL]}


def ask(client, box, name, **request):
    """Send a request and return its final."""
    client.publish(f"{box}/request/{name}", request)
    return client.reply(f"{box}/reply/{name}").json


def test_a_registered_prefix_is_made_ready_by_name_and_covers_system_prompt_and_tools(served):
    client, box = served
    final = ask(client, box, "r1", **VOICE)
    assert (final["status"], final["finish_reason"], final["text"]) == ("ok", "stop", "")
    assert final["prefix"] == {"name": "voice", "state": "registered", "ttl_s": 604_800}
    ask(client, box, "other", prompt="say: something quite different")
    warm = ask(client, box, "w1", warm="voice", hold_s=0.2)
    assert (warm["status"], warm["prefix"]["name"], warm["prefix"]["state"]) == ("ok", "voice", "warm")
    assert warm["prefix"]["hold_s"] == 0.2
    assert warm["usage"]["prompt_tokens"] > 100
    assert warm["usage"]["completion_tokens"] == 0
    question = {"role": "user", "content": "say: hello"}
    answer = ask(
        client, box, "q1", messages=[SYSTEM, question], tools=[TOOL], priority="interactive", stream=True
    )
    assert answer["text"] == "hello"
    # All but the question and the template's headers around it.
    assert answer["usage"]["prompt_tokens"] - answer["usage"]["cached_tokens"] < 40


def test_the_same_registration_changes_nothing_and_another_replaces_it(served):
    client, box = served
    states = [
        ask(client, box, f"r{number}", **request)["prefix"]["state"]
        for number, request in enumerate(
            [
                VOICE,
                VOICE,
                {**VOICE, "tools": []},
                {"unregister": "voice"},
                {"register": "voice", "messages": []},
                VOICE,
                {"register": "voice", "messages": []},
            ]
        )
    ]
    assert states == ["registered", "unchanged", "registered", "removed", "absent", "registered", "removed"]


def test_a_client_has_two_prefixes_and_is_told_so(served):
    client, box = served
    for name in ("one", "two"):
        assert ask(client, box, name, register=name, messages=[SYSTEM])["status"] == "ok"
    refused = ask(client, box, "three", register="three", messages=[SYSTEM])
    assert refused["error"]["code"] == "client_limit"
    assert ask(client, box, "again", register="two", messages=[SYSTEM])["prefix"]["state"] == "unchanged"


def test_a_prefix_of_another_client_has_no_name_here(served, connect, shared_daemon):
    client, box = served
    ask(client, box, "r1", **VOICE)
    other = f"rkllm/{shared_daemon.node}/client/stranger"
    client.subscribe(f"{other}/#")
    assert ask(client, other, "w1", warm="voice")["error"]["code"] == "invalid_request"


def test_messages_that_are_not_registered_can_be_made_ready_too(served):
    client, box = served
    warm = ask(client, box, "w1", warm=True, messages=[SYSTEM], tools=[TOOL])
    assert warm["prefix"] == {"name": None, "state": "warm", "hold_s": 0}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"warm": "nobody"}, "invalid_request"),
        ({"warm": True}, "invalid_request"),
        ({"warm": "voice", "messages": [SYSTEM]}, "invalid_request"),
        ({"warm": "voice", "hold_s": 31}, "invalid_request"),
        ({"register": "voice", "prompt": "hi"}, "invalid_request"),
        ({"register": "no name", "messages": [SYSTEM]}, "invalid_request"),
        ({"register": "a", "warm": "a", "messages": [SYSTEM]}, "invalid_request"),
        ({"register": 5, "messages": [SYSTEM]}, "invalid_request"),
        ({"register": "voice", "messages": [SYSTEM], "model": "none"}, "unknown_model"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_with_a_sentence(served, request_, code):
    client, box = served
    error = ask(client, box, "q1", **request_)["error"]
    assert error["code"] == code
    assert error["hint"]


def test_what_has_no_effect_is_told(served):
    client, box = served
    client.publish(f"{box}/request/r1", {**VOICE, "stream": True, "hold_s": 3, "temperature": 1})
    event = client.wait(lambda m: m.topic == f"{box}/event/r1" and m.json["type"] == "accepted").json
    assert sorted(event["ignored"]) == ["hold_s", "stream", "temperature"]
    client.reply(f"{box}/reply/r1")


def test_a_resent_wish_gets_its_first_final_again(served):
    client, box = served
    ask(client, box, "r1", **VOICE)
    ask(client, box, "u1", unregister="voice")
    client.publish(f"{box}/request/r1", VOICE)
    finals = client.wait_many(lambda m: m.topic == f"{box}/reply/r1", 2)
    assert finals[0].payload == finals[1].payload
    assert json.loads(finals[0].payload)["prefix"]["state"] == "registered"


def test_bare_text_is_always_a_question(served):
    client, box = served
    client.publish(f"{box}/request/t1", b'say: {"register": "voice"}')
    assert client.reply(f"{box}/reply/t1").payload == b'{"register": "voice"}'
