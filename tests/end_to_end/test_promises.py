"""Nothing is lost, nothing runs twice: kills, restarts, duplicates, cancels and deadlines on real parts."""

import contextlib
import os
import signal
import threading

from live_client import Client
from live_daemon import check_answer


def first_delta(watcher: Client, box: str, request_id: str, attempt: int = 1):
    return watcher.wait(lambda m: m.topic == f"{box}/delta/{request_id}" and m.json["attempt"] == attempt)


def test_prompts_sent_while_the_daemon_is_down_are_answered_when_it_is_back(launch):
    daemon, watcher = launch(afresh=True)
    box = daemon.client("app")
    daemon.kill()
    for number in range(50):
        watcher.publish(f"{box}/request/p{number}", f"prompt {number}")
    daemon.start(watcher)
    for number in range(50):
        assert watcher.reply(f"{box}/reply/p{number}").payload == f"You said: prompt {number}".encode()


def test_the_will_says_offline_after_a_kill(launch):
    daemon, watcher = launch(afresh=True, mqtt={"will_delay_s": 0})
    topic = f"rkllm/{daemon.node}/status"
    daemon.kill()
    assert watcher.wait(lambda m: m.topic == topic and m.payload == b"offline")


def test_a_running_answer_is_cancelled_and_confirmed_by_its_final(served_slowly):
    watcher, box = served_slowly
    watcher.publish(f"{box}/request/q1", {"prompt": "story 400 tokens", "stream": True})
    watcher.publish(f"{box}/request/q2", "next")
    first_delta(watcher, box, "q1")
    watcher.publish(f"{box}/cancel/q1", b"")
    final = check_answer(watcher, box, "q1")
    assert final["status"] == "error"
    assert final["error"]["code"] == "cancelled"
    assert final["finish_reason"] == "cancelled"
    assert final["text"]
    watcher.reply(f"{box}/reply/q2")
    after = watcher.messages.index(watcher.on(f"{box}/reply/q1")[0])
    assert not [m for m in watcher.messages[after:] if m.topic == f"{box}/delta/q1"]


def test_waiting_requests_are_cancelled_by_id_in_each_form_and_all_at_once(served_slowly):
    watcher, box = served_slowly
    watcher.publish(f"{box}/request/run", {"prompt": "story 400 tokens", "stream": True})
    first_delta(watcher, box, "run")
    for name in ("staged", "a", "b", "c", "d"):
        watcher.publish(f"{box}/request/{name}", {"prompt": "waits"})
    watcher.publish(f"{box}/cancel", "a")
    watcher.publish(f"{box}/cancel", {"id": "b"})
    watcher.publish(f"{box}/cancel/staged", "")
    for name in ("a", "b", "staged"):
        assert watcher.reply(f"{box}/reply/{name}").json["error"]["code"] == "cancelled"
    assert not watcher.on(f"{box}/reply/run")
    watcher.publish(f"{box}/cancel", {"all": True})
    for name in ("run", "c", "d"):
        assert watcher.reply(f"{box}/reply/{name}").json["error"]["code"] == "cancelled"


def test_a_cancel_of_an_unknown_id_is_told_so(served):
    watcher, box = served
    watcher.publish(f"{box}/cancel/nobody", "")
    event = watcher.wait(lambda m: m.topic == f"{box}/event/nobody").json
    assert event["type"] == "cancel_unknown"
    assert event["id"] == "nobody"


def test_a_cancel_sent_right_behind_its_request_never_misses_it(served):
    watcher, box = served
    for number in range(40):
        watcher.publish_soon(f"{box}/request/r{number}", {"prompt": f"story {number + 1} tokens"})
        watcher.publish_soon(f"{box}/cancel/r{number}", "")
    for number in range(40):
        watcher.reply(f"{box}/reply/r{number}")
    assert not [m for m in watcher.messages if "event" in m.topic and m.json["type"] == "cancel_unknown"]


def test_a_resent_request_is_a_duplicate_and_gets_the_same_bytes_again(served):
    watcher, box = served
    payload = b'{"prompt":"hi there"}'
    watcher.publish(f"{box}/request/q1", payload)
    first = watcher.reply(f"{box}/reply/q1")
    watcher.publish(f"{box}/request/q1", payload)
    both = watcher.wait_many(lambda m: m.topic == f"{box}/reply/q1", 2)
    assert both[1].payload == first.payload
    events = [m.json for m in watcher.on(f"{box}/event/q1") if m.json["type"] == "accepted"]
    assert [event["duplicate"] for event in events] == [False, True]


def test_another_body_under_a_used_id_is_a_conflict_and_the_first_stands(served):
    watcher, box = served
    watcher.publish(f"{box}/request/q1", {"prompt": "one"})
    watcher.reply(f"{box}/reply/q1")
    watcher.publish(f"{box}/request/q1", {"prompt": "two"})
    both = watcher.wait_many(lambda m: m.topic == f"{box}/reply/q1", 2)
    assert both[1].json["error"]["code"] == "id_conflict"
    watcher.publish(f"{box}/request/q1", {"prompt": "one"})
    assert watcher.wait_many(lambda m: m.topic == f"{box}/reply/q1", 3)[2].payload == both[0].payload


def test_a_duplicate_of_a_waiting_request_moves_its_answer_to_the_new_response_topic(served_slowly):
    watcher, box = served_slowly
    watcher.publish(f"{box}/request/run", {"prompt": "story 20 tokens", "stream": True})
    first_delta(watcher, box, "run")
    watcher.publish(f"{box}/request/q1", {"prompt": "hi"}, ResponseTopic=f"{box}/old")
    watcher.publish(f"{box}/request/q1", {"prompt": "hi"}, ResponseTopic=f"{box}/new")
    assert watcher.reply(f"{box}/new").json["id"] == "q1"
    assert not watcher.on(f"{box}/old")


def test_a_duplicate_of_a_waiting_request_is_told_its_own_place(served_slowly):
    watcher, box = served_slowly
    watcher.publish(f"{box}/request/run", {"prompt": "story 400 tokens", "stream": True})
    first_delta(watcher, box, "run")
    for name in ("a", "b", "c", "d"):
        watcher.publish(f"{box}/request/{name}", {"prompt": "waits"})
        watcher.wait(lambda m, name=name: m.topic == f"{box}/event/{name}" and m.json["type"] == "accepted")
    watcher.publish(f"{box}/request/b", {"prompt": "waits"})
    told = watcher.wait(lambda m: m.topic == f"{box}/event/b" and m.json.get("duplicate"))
    assert told.json["position"] == 2
    assert told.json["queue_length"] == 4


def test_a_deadline_ends_a_running_and_a_waiting_request(launch):
    # A daemon that has run nothing yet does not know that the second one can never be in time.
    daemon, watcher = launch(environment={"RKLLM_SIM_PROFILE": "origin"})
    box = daemon.client("app")
    watcher.publish(f"{box}/request/run", {"prompt": "story 400 tokens", "stream": True, "ttl_s": 1.5})
    watcher.publish(f"{box}/request/wait", {"prompt": "hi", "ttl_s": 0.3})
    waiting = watcher.reply(f"{box}/reply/wait").json
    assert waiting["error"]["code"] == "expired"
    assert waiting["finish_reason"] == "expired"
    running = check_answer(watcher, box, "run")
    assert running["error"]["code"] == "expired"
    assert running["text"]


def test_the_smaller_of_ttl_and_message_expiry_wins(served_slowly):
    watcher, box = served_slowly
    watcher.publish(
        f"{box}/request/q1", {"prompt": "story 400 tokens", "ttl_s": 600}, MessageExpiryInterval=1
    )
    assert watcher.reply(f"{box}/reply/q1").json["error"]["code"] == "expired"


def tokens_of(sender: int, number: int) -> int:
    return 3 + (number * 7 + sender) % 15


def send_all(senders: list[Client], boxes: list[str], count: int) -> None:
    """Mixed text and JSON, streaming or not."""
    for number in range(count):
        for n, (sender, box) in enumerate(zip(senders, boxes, strict=True)):
            payload: object = {"prompt": f"story {tokens_of(n, number)} tokens", "stream": number % 4 != 1}
            if number % 4 == 0:
                payload = f"prompt {n} {number}"
            sender.publish_soon(f"{box}/request/r{number}", payload)


def check_all(senders: list[Client], boxes: list[str], count: int) -> None:
    for n, (sender, box) in enumerate(zip(senders, boxes, strict=True)):
        for number in range(count):
            reply = sender.reply(f"{box}/reply/r{number}", 120)
            if number % 4 == 0:
                assert reply.payload == f"You said: prompt {n} {number}".encode()
            else:
                final = check_answer(sender, box, f"r{number}")
                assert final["status"] == "ok"
                assert final["usage"]["completion_tokens"] == tokens_of(n, number)
            # Published again at most with the same bytes.
            assert {m.payload for m in sender.on(f"{box}/reply/r{number}")} == {reply.payload}


def test_ten_senders_get_exactly_one_outcome_for_each_prompt(launch, connect):
    daemon, watcher = launch()
    watcher.close()  # the senders hear what they need
    boxes = [daemon.client(f"s{n}") for n in range(10)]
    senders = [connect(f"{box}/#") for box in boxes]
    send_all(senders, boxes, 20)
    check_all(senders, boxes, 20)


def test_ten_senders_with_a_hundred_prompts_each_get_them_also_while_workers_are_killed(launch, connect):
    # Many kills may hit one prompt by chance: this test is not about giving up.
    daemon, watcher = launch(runtime={"max_attempts": 50})
    watcher.close()  # the senders hear what they need
    health = connect(f"rkllm/{daemon.node}/health")
    boxes = [daemon.client(f"s{n}") for n in range(10)]
    senders = [connect(f"{box}/#") for box in boxes]
    over, killed = threading.Event(), set()

    def kill_workers() -> None:
        while not over.wait(1):
            newest = health.on(f"rkllm/{daemon.node}/health")[-1].json
            pid = newest["worker"]["pid"]
            # Not one that still loads: three of them in a row would be a model that cannot be loaded.
            if newest["model_loaded"] and pid is not None and pid not in killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        send_all(senders, boxes, 100)
        check_all(senders, boxes, 100)
    finally:
        over.set()
        killer.join()
    assert killed
