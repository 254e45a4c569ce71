"""The promise of `core/answers.py`: the payloads of protocol 1.0, byte for byte, and never above a limit.

`tests/wire` holds one message of each kind; whoever reads our messages tests against the same files.
"""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from rkllm_mqtt.answer import publish_event
from rkllm_mqtt.core import answers
from rkllm_mqtt.core.answers import Final, Timing, Usage, bare_text, build_outcome, cut_text, encode
from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.evaluation import weigh
from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.core.verdict import EXPIRED
from rkllm_mqtt.readouts import likeliest, members_of
from rkllm_mqtt.runtime.run import EndReason, RunEnd

WIRE = Path(__file__).parents[1] / "wire"
ROOMY = 1_000_000
FINAL = Final(
    id="q7",
    node="rock5",
    model="qwen3-1.7b",
    created=1795316830,
    status="ok",
    text='Grüße — "hello",\nboard 🙂',
    thinking="They greet me.",
    finish_reason="stop",
    usage=Usage(230, 21, 210),
    timing=Timing(5.4021, 124.8579, 119.085, 1285.359, 1410.46, 15.56),
    attempt=2,
    deltas=2,
)
# Characters of every length in UTF-8, and of every length as an escape.
HARD = st.text(st.sampled_from('aé—🙂"\\\n\t\b\x01\x1f\x7f\u2028/u0'), max_size=80) | st.text(max_size=40)


def golden(name):
    return json.loads((WIRE / f"{name}.json").read_bytes())


# golden messages


def test_a_final_is_the_golden_one_byte_for_byte():
    outcome = build_outcome(FINAL, reply_bytes=ROOMY, payload_bytes=ROOMY)
    assert outcome == encode(golden("final"))


def test_a_final_with_calls_is_the_golden_one_byte_for_byte():
    function = {"name": "turn_on", "arguments": '{"name": "Küche 💡"}'}
    called = replace(
        FINAL,
        text="I will.",
        thinking="",
        deltas=1,
        finish_reason="tool_calls",
        tool_calls=({"id": "8f3a1c07e", "type": "function", "function": function},),
    )
    assert build_outcome(called, reply_bytes=ROOMY, payload_bytes=ROOMY) == encode(golden("final_tool_calls"))


def test_what_became_of_a_wish_for_a_prefix_is_the_golden_one_byte_for_byte():
    done = replace(FINAL, text="", thinking="", attempt=1, deltas=0)
    warm = replace(
        done,
        usage=Usage(2950, 0, 2816, cached_estimated=True),
        timing=Timing(5.402, None, 612.5, None, 618.9, None),
        more={"prefix": {"name": "voice", "state": "warm", "hold_s": 6.0}},
    )
    registered = replace(
        done,
        usage=Usage(),
        timing=Timing(queue_ms=1.2, total_ms=1.2),
        more={"prefix": {"name": "voice", "state": "registered", "ttl_s": 604800.0}},
    )
    for name, final in (("final_warm", warm), ("final_registered", registered)):
        assert build_outcome(final, reply_bytes=ROOMY, payload_bytes=ROOMY) == encode(golden(name))


def test_a_cut_final_is_the_golden_one_byte_for_byte():
    outcome = build_outcome(FINAL, reply_bytes=12, payload_bytes=ROOMY)
    assert outcome == encode(golden("final_truncated"))


NUMBERS = replace(
    FINAL,
    text="Yes",
    thinking="",
    usage=Usage(64, cached_estimated=True),
    timing=Timing(5.4021, total_ms=310.46),
    attempt=1,
    deltas=0,
)


def test_finals_of_numbers_are_the_golden_ones_byte_for_byte():
    asked = ChatRequest(messages=(), model="m", max_tokens=1, task="evaluate", options=("Yes", "No"))
    weighed = weigh([[1], [2]], [-0.3, -1.8])
    end = RunEnd(EndReason.STOP, scores=tuple((one.log_probability, one.probability) for one in weighed))
    final = replace(NUMBERS, text=likeliest(asked, end), more=members_of(asked, end))
    assert build_outcome(final, reply_bytes=ROOMY, payload_bytes=ROOMY) == encode(golden("final_evaluation"))
    end = RunEnd(EndReason.STOP, vectors=((0.6, -0.8), (0.0, 1.0)))
    final = replace(NUMBERS, text="", more=members_of(replace(asked, task="embed"), end))
    assert build_outcome(final, reply_bytes=ROOMY, payload_bytes=ROOMY) == encode(golden("final_embeddings"))


def test_an_error_is_the_final_with_the_error_and_the_partial_text():
    expired = replace(
        FINAL,
        status="error",
        text="Grüße",
        thinking="",
        finish_reason="expired",
        usage=Usage(230, 2, 6, cached_estimated=True),
        timing=Timing(5.402, 124.858, total_ms=210.0),
        deltas=1,
        fault=EXPIRED.fault,
    )
    assert build_outcome(expired, reply_bytes=ROOMY, payload_bytes=ROOMY) == encode(golden("error"))


def test_deltas_are_the_golden_ones_byte_for_byte():
    assert answers.delta("q7", 2, 0, "text", 'Grüße — "hello",\nboard 🙂') == encode(golden("delta"))
    assert answers.delta("q7", 2, 1, "thinking", "They greet me.\\") == encode(golden("delta_thinking"))


@pytest.mark.parametrize("name", ["accepted", "position", "started", "progress", "restarted"])
def test_events_are_the_golden_ones_byte_for_byte(make_job, name):
    sent = []
    expected = golden(name)
    job = make_job(7, events=expected["n"])
    members = {key: value for key, value in expected.items() if key not in ("type", "n", "id")}
    publish_event(lambda message: sent.append(message) or True, job, name, **members)
    (message,) = sent
    assert (message.topic, message.payload, message.qos, message.retain) == (
        "rkllm/rock5/client/kitchen/event/q7",
        encode(expected),
        1,
        False,
    )


def test_senders_of_bare_text_get_no_events(make_job):
    request = ChatRequest(messages=(), model="demo", max_tokens=1, text=True)
    publish_event(pytest.fail, make_job(7, request=request), "started")


def test_every_answer_carries_what_its_sender_wants_echoed(make_job):
    sent = []
    address = Address(Mailbox("rkllm", "rock5", "a"), None, None, b"\0c", (("x-room", "k"),))
    publish_event(lambda message: sent.append(message) or True, make_job(7, address=address), "started")
    assert (sent[0].correlation_data, sent[0].user_properties) == (b"\0c", (("x-room", "k"),))


OF_A_FINAL = (
    "id object created node model status text thinking tool_calls finish_reason usage timing attempt deltas"
    " truncated"
)
MEMBERS = {
    "accepted": "type n id node priority position queue_length eta_s duplicate ignored",
    "rejected": "type n id node priority position queue_length eta_s duplicate ignored error",
    "position": "type n id position eta_s",
    "started": "type n id attempt model cached_tokens",
    "progress": "type n id phase elapsed_s eta_s",
    "restarted": "type n id attempt from_seq",
    "cancel_unknown": "type n id",
    "rate_limited": "type n id node dropped retry_after_s",
    "delta": "id attempt seq text",
    "delta_thinking": "id attempt seq thinking",
    "final": OF_A_FINAL,
    "final_tool_calls": OF_A_FINAL,
    "final_truncated": OF_A_FINAL,
    "final_evaluation": f"{OF_A_FINAL} evaluation",
    "final_embeddings": f"{OF_A_FINAL} data",
    "final_warm": f"{OF_A_FINAL} prefix",
    "final_registered": f"{OF_A_FINAL} prefix",
    "error": f"{OF_A_FINAL} error",
    "rejection": f"{OF_A_FINAL} error",
    "info": "schema uid node base software version boot_id started_at runtime models features presets limits"
    " topics groups",
    "queue": "state accepting length limit slots running waiting_by_priority oldest_wait_s eta_s",
    "health": "at boot_id status reasons simulated model_loaded model_unloaded prefix worker npu driver"
    " disk_free_mb broker",
    "stats": None,
    "admin_response": "status data error transaction",
    "admin_error": "status data error transaction",
    "log": "at level event job attempt crashes reason",
}


@pytest.mark.parametrize("name", MEMBERS)
def test_each_golden_message_has_the_members_of_the_protocol_in_their_order(name):
    if MEMBERS[name] is not None:
        assert list(golden(name)) == MEMBERS[name].split()


def test_there_is_a_list_of_members_for_each_golden_message():
    assert {file.stem for file in WIRE.glob("*.json")} == set(MEMBERS)


def test_the_golden_state_is_flat_small_and_says_its_units():
    stats = golden("stats")
    assert all(value is None or isinstance(value, int | float) for value in stats.values())
    assert set(golden("queue")["slots"]) == {"total", "active", "available"}
    assert set(golden("queue")["waiting_by_priority"]) == {"interactive", "normal", "background"}
    assert golden("health")["reasons"] == [
        Reason("disk_low", "only 120 MB are free beside the journal", "Free some space.").members()
    ]
    # MQTT Explorer cuts a payload there.
    assert all(len(encode(golden(name))) < 20_000 for name in ("info", "queue", "health", "stats"))


def shape(value):
    """Return the members in their order; a null may stand for anything, and an empty list for any list."""
    if isinstance(value, dict):
        return [(key, shape(member)) for key, member in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool | str) or value is None:
        return type(value).__name__
    return "number"


def assert_same_shape(found, expected, where):
    if found in ("NoneType", []) or expected in ("NoneType", []):
        return
    assert type(found) is type(expected), where
    if isinstance(found, list) and isinstance(found[0], tuple):
        assert [key for key, _ in found] == [key for key, _ in expected], where
        for (key, one), (_, other) in zip(found, expected, strict=True):
            assert_same_shape(one, other, f"{where}.{key}")
    elif isinstance(found, list):
        assert_same_shape(found[0], expected[0], f"{where}[]")
    else:
        assert found == expected, where


def test_the_golden_messages_have_the_shape_of_those_that_a_daemon_publishes(served, connect, shared_daemon):
    watcher, box = served
    base = f"rkllm/{shared_daemon.node}"
    watcher.subscribe(f"{base}/admin/response/#")
    published = {name: watcher.reply(f"{base}/{name}").json for name in ("info", "queue", "health", "stats")}
    watcher.publish(f"{box}/request/q7", {"prompt": "story 40 tokens", "stream": True, "seed": 1})
    published["final"] = watcher.reply(f"{box}/reply/q7").json
    published["delta"] = watcher.reply(f"{box}/delta/q7").json
    for name, asked in (
        ("final_evaluation", {"task": "evaluate", "prompt": "say: No", "options": ["Yes", "No"]}),
        ("final_embeddings", {"task": "embed", "input": "hello"}),
    ):
        watcher.publish(f"{box}/request/{name}", asked)
        published[name] = watcher.reply(f"{box}/reply/{name}").json
    watcher.publish(f"{box}/request/q8", {"prompt": "hi", "ttl_s": 0})
    published["rejection"] = watcher.reply(f"{box}/reply/q8").json
    watcher.publish(f"{box}/cancel/q9", b"")
    watcher.publish(f"{base}/admin/request/log_level", {"level": "debug", "transaction": "t1"})
    published["admin_response"] = watcher.reply(f"{base}/admin/response/log_level").json
    for kind, tail in (("accepted", "q7"), ("started", "q7"), ("rejected", "q8"), ("cancel_unknown", "q9")):
        wanted = f"{box}/event/{tail}"
        published[kind] = watcher.wait(
            lambda m, topic=wanted, kind=kind: m.topic == topic and m.json["type"] == kind
        ).json
    for name, message in published.items():
        assert_same_shape(shape(message), shape(golden(name)), name)
    assert golden("rejection")["error"] == published["rejection"]["error"]


# limits


@given(HARD, st.integers(0, 200))
def test_a_text_is_cut_at_the_last_whole_character_that_fits(text, limit):
    cut = cut_text(text, limit)
    assert text.startswith(cut)
    assert len(cut.encode()) <= limit
    if cut != text:
        assert len(text[: len(cut) + 1].encode()) > limit


@given(HARD, HARD, st.integers(16, 400), st.integers(0, 1_200))
@example("\x01" * 400, "", ROOMY, 700)
@example('"' * 400, "\\" * 400, ROOMY, 700)
@example("🙂" * 200, "🙂" * 200, ROOMY, 501)
@example("a" * 400, "b" * 400, ROOMY, 0)
def test_an_outcome_keeps_both_limits_whatever_its_text_and_is_not_cut_more_than_needed(
    text, thinking, reply_bytes, payload_bytes
):
    final = replace(FINAL, text=text, thinking=thinking)
    outcome = build_outcome(final, reply_bytes=reply_bytes, payload_bytes=payload_bytes)
    members = json.loads(outcome)
    uncuttable = len(encode({**members, "text": "", "thinking": ""}))
    assert len(outcome) <= max(payload_bytes, uncuttable)
    assert len(members["text"].encode()) <= reply_bytes
    assert text.startswith(members["text"])
    assert thinking.startswith(members["thinking"])
    assert members["truncated"] == ((members["text"], members["thinking"]) != (text, thinking))
    # Another character would not have fitted; `false` is a byte longer than `true`.
    part, whole = "text", cut_text(text, reply_bytes)
    if members["text"] == whole:
        part, whole = "thinking", thinking
    if members[part] != whole:
        longer = {**members, part: whole[: len(members[part]) + 1], "truncated": False}
        assert len(encode(longer)) > payload_bytes
    # The answer is cut only when there are no thoughts left to cut.
    assert members["text"] == cut_text(text, reply_bytes) or members["thinking"] == ""


def test_what_was_not_cut_is_not_called_truncated():
    outcome = build_outcome(FINAL, reply_bytes=len(FINAL.text.encode()), payload_bytes=ROOMY)
    exact = len(outcome)
    assert build_outcome(FINAL, reply_bytes=ROOMY, payload_bytes=exact) == outcome
    assert json.loads(outcome)["truncated"] is False
    assert json.loads(build_outcome(FINAL, reply_bytes=ROOMY, payload_bytes=exact - 1))["truncated"] is True


@given(HARD, st.integers(0, 120))
def test_what_is_sent_as_bare_text_keeps_all_the_text_that_fits(text, payload_bytes):
    outcome = build_outcome(
        replace(FINAL, text=text), reply_bytes=ROOMY, payload_bytes=payload_bytes, bare=True
    )
    kept = json.loads(outcome)
    assert len(bare_text(outcome)) <= max(1, payload_bytes)
    assert text.startswith(kept["text"])
    assert len(kept["text"].encode()) > payload_bytes - 5 or kept["text"] == text
    assert kept["truncated"] == (kept["text"] != text)


def test_reply_bytes_do_not_cut_the_thoughts():
    outcome = build_outcome(replace(FINAL, thinking="t" * 100), reply_bytes=16, payload_bytes=ROOMY)
    assert json.loads(outcome)["thinking"] == "t" * 100


# encoding


@given(HARD, st.sampled_from(["text", "thinking"]))
def test_a_delta_is_the_json_that_the_encoder_would_write(text, kind):
    expected = encode({"id": "q1", "attempt": 1, "seq": 12, kind: text})
    assert answers.delta("q1", 1, 12, kind, text) == expected


def test_payloads_are_compact_utf8_in_the_order_given():
    assert encode({"b": "é", "a": [1, None, True]}) == '{"b":"é","a":[1,null,true]}'.encode()


def test_a_number_that_json_does_not_have_is_refused():
    with pytest.raises(ValueError, match="Out of range"):
        encode({"a": float("nan")})


def test_an_error_has_code_message_hint_and_whether_and_when_to_try_again():
    members = answers.error_members(Fault(Code.QUEUE_FULL, "full", "Wait.", 30))
    assert list(members.items()) == [
        ("code", "queue_full"),
        ("message", "full"),
        ("hint", "Wait."),
        ("retryable", True),
        ("retry_after_s", 30),
    ]


# bare text


@given(HARD)
@example("ERROR 404 is a page")
@example("ERROR")
@example(" ERROR x")
@example("ERRORS are made")
def test_an_answer_is_told_from_an_error_by_its_beginning(text):
    outcome = build_outcome(replace(FINAL, text=text), reply_bytes=ROOMY, payload_bytes=ROOMY)
    bare = bare_text(outcome).decode()
    assert not bare.startswith("ERROR ")
    assert bare == (f" {text}" if text.startswith("ERROR ") else text)


def test_an_error_as_bare_text_is_its_code_and_its_sentence():
    final = replace(FINAL, text="partial", status="error", fault=Fault(Code.SLOT_FAILED, "es ging schief"))
    outcome = build_outcome(final, reply_bytes=ROOMY, payload_bytes=ROOMY)
    assert bare_text(outcome) == b"ERROR slot_failed: es ging schief"
