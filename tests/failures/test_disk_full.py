"""The disk is full, read-only or failing: new work is refused, finals come when they can be stored."""

import errno

from chaos.machine import Machine
from live_daemon import check_answer


def test_new_work_is_refused_at_once_and_promised_finals_come_when_there_is_room(launch, tmp_path):
    (tmp_path / "board").mkdir()
    machine = Machine(tmp_path / "board", tmp_path)
    environment = {"RKLLM_SIM_PROFILE": "origin", **machine.environment}
    daemon, watcher = launch(environment=environment, journal={"ballast_mb": 1})
    for error in (errno.EROFS, errno.EIO):
        check_failing(machine, daemon, watcher, error)
    check_full(machine, daemon, watcher)
    machine.limit_disk(None)
    assert daemon.stop() == 0
    machine.close()


def test_a_daemon_that_cannot_store_a_final_ends_in_time_and_answers_after_the_restart(launch, tmp_path):
    (tmp_path / "board").mkdir()
    machine = Machine(tmp_path / "board", tmp_path)
    daemon, watcher = launch(environment=dict(machine.environment))
    box, log = daemon.client("app"), f"rkllm/{daemon.node}/log"
    watcher.publish(f"{box}/request/q1", {"prompt": "story 3000 tokens", "max_tokens": 3000})
    watcher.publish(f"{box}/request/q2", {"prompt": "say: hello"})
    watcher.wait(lambda m: m.topic == f"{box}/event/q2" and m.json["type"] == "accepted")
    machine.fail_disk(errno.EIO)
    watcher.publish(f"{box}/cancel/q2", "")
    watcher.publish(f"{box}/cancel/q1", "")
    watcher.wait(lambda m: m.topic == log and m.json["event"] == "outcome_withheld")
    assert daemon.stop() == 0
    machine.fail_disk(None)
    daemon.start(watcher)
    for name in ("q1", "q2"):
        watcher.reply(f"{box}/reply/{name}")
        assert len({m.payload for m in watcher.on(f"{box}/reply/{name}")}) == 1
    machine.close()


def check_failing(machine, daemon, watcher, error):
    """Nothing can be written: the final is withheld until it can."""
    box, log, seen = daemon.client(f"app{error}"), f"rkllm/{daemon.node}/log", len(watcher.messages)
    watcher.publish(f"{box}/request/old", {"prompt": "story 10 tokens"})
    watcher.wait(lambda m: m.topic == f"{box}/event/old" and m.json["type"] == "started")
    machine.fail_disk(error)
    watcher.publish(f"{box}/request/new", {"prompt": "say: hello"})
    refused = watcher.reply(f"{box}/reply/new").json["error"]
    assert (refused["code"], refused["retryable"]) == ("internal", True)
    withheld = watcher.wait(
        lambda m: (m.topic == log and m.json["event"] == "outcome_withheld" and m in watcher.messages[seen:])
    )
    assert withheld.json["level"] == "error"
    assert not watcher.on(f"{box}/reply/old")
    assert is_unhealthy(watcher, daemon)
    machine.fail_disk(None)
    assert watcher.reply(f"{box}/reply/old").json["usage"]["completion_tokens"] == 10
    # A refusal does not use up the id.
    watcher.publish(f"{box}/request/new", {"prompt": "say: hello"})
    both = watcher.wait_many(lambda m: m.topic == f"{box}/reply/new", 2)
    assert both[1].json["text"] == "hello"


def check_full(machine, daemon, watcher):
    """There is no space: the ballast is given up for the finals."""
    box = daemon.client("full")
    watcher.publish(f"{box}/request/old", {"prompt": "story 10 tokens", "stream": True})
    watcher.wait(lambda m: m.topic == f"{box}/event/old" and m.json["type"] == "started")
    machine.limit_disk(0)
    watcher.publish(f"{box}/request/new", {"prompt": "x" * 60_000})
    refused = watcher.reply(f"{box}/reply/new").json
    assert (refused["error"]["code"], refused["error"]["retryable"]) == ("internal", True)
    watcher.publish(f"{box}/request/text", "a question in bare text" * 1000)
    assert watcher.reply(f"{box}/reply/text").payload.startswith(b"ERROR internal: ")
    assert check_answer(watcher, box, "old")["status"] == "ok"
    assert machine.free_bytes > 0, "the ballast was not given up"


def is_unhealthy(watcher, daemon):
    topic = f"rkllm/{daemon.node}/health"
    told = watcher.wait(lambda m: m.topic == topic and "journal" in {r["code"] for r in m.json["reasons"]})
    return told.json["status"] == "unhealthy"
