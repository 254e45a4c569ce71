"""The library crashes or its process is killed: the job runs again; one that kills each time fails alone."""

import os
import signal

from live_daemon import check_answer
from live_slot import MODELS

SLOW = {"RKLLM_SIM_PROFILE": "origin"}


def test_a_killed_worker_restarts_the_answer_and_the_sender_is_told(launch):
    daemon, watcher = launch(environment=SLOW)
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "story 20 tokens", "stream": True})
    watcher.wait(lambda m: m.topic == f"{box}/delta/q1" and m.json["attempt"] == 1)
    os.kill(daemon.worker_pid(watcher), signal.SIGKILL)
    final = check_answer(watcher, box, "q1")
    assert final["attempt"] == 2
    assert final["usage"]["completion_tokens"] == 20
    restarted = watcher.wait(lambda m: m.topic == f"{box}/event/q1" and m.json["type"] == "restarted").json
    assert restarted["attempt"] == 2
    assert restarted["from_seq"] == 0


def test_prompts_that_kill_the_worker_each_time_fail_alone(launch):
    daemon, watcher = launch(models=[{"id": "faulty", "file": str(MODELS / "faulty.sim")}])
    box = daemon.client("app")
    faults = ("segfault", "assert", "leave")
    for fault in faults:
        watcher.publish(f"{box}/request/before-{fault}", {"prompt": "say: hello", "stream": True})
        watcher.publish(f"{box}/request/{fault}", {"prompt": f"please {fault}", "stream": True})
    watcher.publish(f"{box}/request/after", {"prompt": "say: hello", "stream": True})
    for fault in faults:
        final = watcher.reply(f"{box}/reply/{fault}").json
        assert final["error"]["code"] == "slot_failed"
        assert final["attempt"] == 3
        told = [m.json for m in watcher.on(f"{box}/event/{fault}") if m.json["type"] == "restarted"]
        assert [event["attempt"] for event in told] == [2, 3]
    for name in ("after", *(f"before-{fault}" for fault in faults)):
        final = check_answer(watcher, box, name)
        assert (final["text"], final["attempt"]) == ("hello", 1)
