"""The main job: a prompt goes in over MQTT, tokens come out."""

import uuid

from live_daemon import check_answer


def test_a_text_prompt_is_answered_with_bare_text(served):
    watcher, box = served
    watcher.publish(f"{box}/request", "hello board")
    assert watcher.reply(f"{box}/reply").payload == b"You said: hello board"
    assert not watcher.on(f"{box}/event")
    assert not watcher.on(f"{box}/delta")


def test_a_streamed_request_gets_accepted_started_gapless_deltas_and_one_final(served):
    watcher, box = served
    watcher.publish(f"{box}/request/q1", {"prompt": "story 100 tokens", "stream": True})
    final = check_answer(watcher, box, "q1")
    assert final["status"] == "ok"
    assert final["finish_reason"] == "stop"
    assert final["usage"]["completion_tokens"] == 100
    assert final["node"] == box.split("/")[1]
    events = [message.json for message in watcher.on(f"{box}/event/q1")]
    assert [event["type"] for event in events][:2] == ["accepted", "started"]
    assert [event["n"] for event in events] == sorted({event["n"] for event in events})
    assert events[0]["duplicate"] is False
    assert events[0]["ignored"] == []


def test_the_final_members_are_those_of_the_protocol_in_its_order(served):
    watcher, box = served
    watcher.publish(f"{box}/request/q1", {"prompt": "hi"})
    final = watcher.reply(f"{box}/reply/q1").json
    assert list(final) == [
        "id", "object", "created", "node", "model", "status", "text", "thinking", "tool_calls",
        "finish_reason", "usage", "timing", "attempt", "deltas", "truncated",
    ]  # fmt: skip
    assert list(final["timing"]) == [
        "queue_ms",
        "ttft_ms",
        "prefill_ms",
        "generate_ms",
        "total_ms",
        "tokens_per_s",
    ]
    assert final["object"] == "chat.completion"


def test_correlation_data_and_x_properties_come_back_on_every_answer(served):
    watcher, box = served
    watcher.publish(
        f"{box}/request/q1",
        {"prompt": "hi", "stream": True},
        CorrelationData=b"\x00\xff42",
        UserProperty=[("x-room", "kitchen"), ("secret", "not echoed")],
    )
    watcher.reply(f"{box}/reply/q1")
    for kind in ("event", "delta", "reply"):
        message = watcher.on(f"{box}/{kind}/q1")[0]
        assert message.properties.CorrelationData == b"\x00\xff42"
        assert message.properties.UserProperty == [("x-room", "kitchen")]


def test_a_response_topic_in_the_own_mailbox_replaces_reply(served):
    watcher, box = served
    asked = f"{box}/answers/mine"
    watcher.publish(f"{box}/request/q1", {"prompt": "hi", "stream": True}, ResponseTopic=asked)
    assert watcher.reply(asked).json["id"] == "q1"
    assert watcher.on(f"{asked}/delta")
    assert watcher.on(f"{asked}/event")
    assert not watcher.on(f"{box}/reply/q1")


def test_a_response_topic_of_somebody_else_is_denied_and_nothing_goes_there(served, connect):
    watcher, box = served
    node = box.split("/")[1]
    for asked in (
        f"rkllm/{node}/client/victim/reply",
        f"rkllm/{node}/status",
        "homeassistant/x",
        f"{box}/request",
    ):
        thief = connect(asked) if "request" not in asked else None
        request_id = uuid.uuid4().hex
        watcher.publish(f"{box}/request/{request_id}", {"prompt": "hi"}, ResponseTopic=asked)
        final = watcher.reply(f"{box}/reply/{request_id}").json
        assert final["error"]["code"] == "reply_topic_denied"
        if thief is not None:
            assert not [message for message in thief.on(asked) if not message.retain]


def test_a_conversation_is_rendered_and_the_system_prompt_kept_out_of_the_answer(served):
    watcher, box = served
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "second question"}]},
    ]
    watcher.publish(f"{box}/request/q1", {"messages": messages})
    assert watcher.reply(f"{box}/reply/q1").json["text"] == "You said: second question"


def test_stop_strings_end_the_answer_and_none_of_them_leaks(served):
    watcher, box = served
    prompt = "one two three four five"
    watcher.publish(f"{box}/request/q1", {"prompt": prompt, "stop": ["ree fo"], "stream": True})
    final = check_answer(watcher, box, "q1")
    assert final["text"] == "You said: one two th"
    assert final["finish_reason"] == "stop"


def test_max_tokens_ends_with_length(served):
    watcher, box = served
    watcher.publish(f"{box}/request/q1", {"prompt": "story 100 tokens", "max_tokens": 7})
    final = watcher.reply(f"{box}/reply/q1").json
    assert final["finish_reason"] == "length"
    assert final["usage"]["completion_tokens"] == 7


def test_unknown_fields_are_listed_as_ignored(served):
    watcher, box = served
    watcher.publish(f"{box}/request/q1", {"prompt": "hi", "seed": 5, "user": "me"})
    accepted = watcher.wait(lambda m: m.topic == f"{box}/event/q1" and m.json["type"] == "accepted").json
    assert accepted["ignored"] == ["seed", "user"]


def test_an_id_in_the_json_is_echoed_but_not_in_the_topics(served):
    watcher, box = served
    watcher.publish(f"{box}/request", {"prompt": "hi", "id": "mine"})
    assert watcher.reply(f"{box}/reply").json["id"] == "mine"


def test_a_retained_request_is_ignored_and_counted(launch):
    daemon, watcher = launch()
    box = daemon.client("ghost")
    watcher.publish(f"{box}/request/live", "a live one", retain=True)
    watcher.reply(f"{box}/reply/live")
    daemon.stop()
    daemon.start(watcher)
    watcher.publish(f"{box}/request/next", "after the restart")
    watcher.reply(f"{box}/reply/next")
    assert len(watcher.on(f"{box}/reply/live")) == 1
    watcher.publish(f"{box}/request/live", b"", retain=True)


def test_last_keeps_the_newest_answer_as_json_and_is_cleared_in_time(launch, connect):
    daemon, watcher = launch(limits={"last_ttl_s": 2})
    box = daemon.client("sleepy")
    watcher.publish(f"{box}/request/q1", {"prompt": "good morning board", "retain": True})
    watcher.reply(f"{box}/reply/q1")
    kept = connect(f"{box}/last").reply(f"{box}/last")
    assert kept.retain
    assert kept.json["text"] == "You said: good morning board"
    assert watcher.wait(lambda m: m.topic == f"{box}/last" and not m.payload)
