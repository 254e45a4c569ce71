"""The promise that a wedged NPU is reported, not waited for: workers that really cannot be killed."""

import os
import signal
import time

from live_slot import MODELS, PATIENCE_S
from unkillable import unkillable


def test_a_worker_that_cannot_be_killed_is_reported_and_not_waited_for(launch):
    models = [{"id": "plain", "file": str(MODELS / "plain.sim")}]
    daemon, watcher = launch(
        models=models, runtime={"abort_grace_s": 0.2, "stall_timeout_s": 2, "restart_max_s": 0.2}
    )
    box, topic = daemon.client("app"), f"rkllm/{daemon.node}/health"

    def health(wanted):
        """Wait until the newest health is as wanted."""
        until = time.monotonic() + PATIENCE_S
        while not wanted(newest := watcher.on(topic)[-1].json):
            assert time.monotonic() < until, newest
            watcher.wait_next(1)
        return newest

    def reasons(members):
        return {reason["code"]: reason for reason in members["reasons"]}

    first = daemon.worker_pid(watcher)
    with unkillable(first):
        os.kill(first, signal.SIGKILL)
        watcher.publish(f"{box}/request/q1", {"prompt": "say: hello"})
        # Another worker serves: the process that hangs is told of, and nobody waits for it.
        assert watcher.reply(f"{box}/reply/q1").json["text"] == "hello"
        told = health(lambda m: "npu_wedged" in reasons(m) and m["model_loaded"])
        assert told["status"] == "degraded"
        assert str(first) in reasons(told)["npu_wedged"]["message"]
        assert "board" in reasons(told)["npu_wedged"]["hint"]
        second = told["worker"]["pid"]
        with unkillable(second):
            os.kill(second, signal.SIGKILL)
            watcher.publish(f"{box}/request/q2", {"prompt": "say: hello"})
            error = watcher.reply(f"{box}/reply/q2").json["error"]
            assert (error["code"], error["retryable"]) == ("slot_failed", True)
            assert "NPU" in error["message"]
            # No third process joins two: a new prompt is told at once, and health says why.
            told = health(
                lambda m: f"{first}, {second}" in reasons(m).get("npu_wedged", {}).get("message", "")
            )
            assert told["status"] == "unhealthy"
            assert told["worker"]["pid"] is None
            watcher.publish(f"{box}/request/q3", {"prompt": "say: hello"})
            assert watcher.wait(lambda m: m.topic == f"{box}/event/q3").json["type"] == "rejected"
        # The driver lets one go: the daemon goes on by itself.
        health(lambda m: m["model_loaded"] and m["status"] == "degraded")
    health(lambda m: m["status"] == "healthy")
    watcher.publish(f"{box}/request/q3", {"prompt": "say: hello"})
    both = watcher.wait_many(lambda m: m.topic == f"{box}/reply/q3", 2)
    assert both[1].json["text"] == "hello"
    assert daemon.log.count("npu_wedged") == 2
