"""Conversations that the daemon keeps: through a restart, one turn at a time, each client its own."""

import json
from itertools import pairwise


def ask(watcher, box, name, prompt, **fields):
    watcher.publish_soon(f"{box}/request/{name}", {"prompt": prompt, "conversation_id": "talk", **fields})


def final(watcher, box, name):
    return watcher.reply(f"{box}/reply/{name}").json


def test_a_conversation_is_remembered_also_after_a_restart_and_by_its_client_alone(launch):
    daemon, watcher = launch()
    mine, other = daemon.client("me"), daemon.client("other")
    ask(watcher, mine, "q1", "say: blue")
    first = final(watcher, mine, "q1")
    daemon.kill()
    daemon.start(watcher)
    ask(watcher, mine, "q2", "say: green")
    ask(watcher, other, "q1", "say: green")
    again, alone = final(watcher, mine, "q2"), final(watcher, other, "q1")
    assert (first["text"], again["text"], alone["text"]) == ("blue", "green", "green")
    assert again["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"] + 5


def test_turns_of_one_conversation_come_one_after_the_other_and_others_pass_them(served):
    watcher, box = served
    for number in range(5):
        ask(watcher, box, f"q{number}", f"story {20 + number} tokens")
    watcher.publish_soon(f"{box}/request/free", {"prompt": "say: free"})
    finals = [final(watcher, box, f"q{number}") for number in range(5)]
    assert final(watcher, box, "free")["text"] == "free"
    lengths = [answer["usage"]["prompt_tokens"] for answer in finals]
    assert lengths == sorted(lengths)
    assert all(later - earlier > 15 for earlier, later in pairwise(lengths))


def test_a_turn_that_was_cancelled_is_no_part_of_it_and_lets_the_next_one_come(served_slowly):
    watcher, box = served_slowly
    ask(watcher, box, "q1", f"{'long ' * 500} story 4000 tokens", max_tokens=4096, stream=True)
    ask(watcher, box, "held", "say: never")
    ask(watcher, box, "q2", "say: x")
    watcher.reply(f"{box}/delta/q1")
    for name in ("held", "q1"):
        watcher.publish(f"{box}/cancel/{name}", "")
        assert final(watcher, box, name)["finish_reason"] == "cancelled"
    assert final(watcher, box, "q2")["usage"]["prompt_tokens"] < 100


def test_an_administrator_sees_sizes_and_can_forget(served, shared_daemon):
    watcher, box = served
    me, admin = box.rsplit("/", 1)[1], f"rkllm/{shared_daemon.node}/admin"
    watcher.subscribe(f"{admin}/response/+")
    ask(watcher, box, "q1", "say: secret")
    final(watcher, box, "q1")
    watcher.publish(f"{admin}/request/conversations", {})
    response = watcher.reply(f"{admin}/response/conversations")
    (shown,) = [one for one in response.json["data"]["conversations"] if one["client"] == me]
    assert (shown["id"], shown["turns"]) == ("talk", 1)
    assert b"secret" not in response.payload
    for status in ("ok", "error"):
        watcher.publish(f"{admin}/request/conversation_forget", {"client": me, "id": "talk"})
        watcher.wait(
            lambda m, status=status: m.topic == f"{admin}/response/conversation_forget"
            and json.loads(m.payload)["status"] == status
        )


def test_an_invalid_conversation_id_is_refused(served):
    client, box = served
    client.publish(f"{box}/request/q1", {"prompt": "hi", "conversation_id": "a b"})
    assert client.reply(f"{box}/reply/q1").json["error"]["code"] == "invalid_request"
