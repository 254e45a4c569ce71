"""The promise of `commanding.py`: what an administrator asks for over MQTT is done and answered."""

import os
import signal

import pytest
from live_slot import MODELS

CONFIG = {
    "models": [{"id": name, "file": str(MODELS / f"{name}.sim")} for name in ("faulty", "plain")],
    "delta_interval_ms": 0,
}


class Administrator:
    """Commands with their responses; hears everything else of the node too."""

    def __init__(self, daemon, watcher):
        self.daemon, self.watcher, self._number = daemon, watcher, 0

    def ask(self, command, **arguments):
        """Return the response to one command."""
        self._number += 1
        base = f"rkllm/{self.daemon.node}/admin"
        self.watcher.publish(f"{base}/request/{command}", {"transaction": self._number, **arguments})
        return self.watcher.wait(
            lambda m: m.topic == f"{base}/response/{command}" and m.json["transaction"] == self._number
        ).json

    def do(self, command, **arguments):
        """Return the data of a command that succeeds."""
        response = self.ask(command, **arguments)
        assert response["status"] == "ok", response
        return response["data"]

    def send(self, name, prompt="say: hello", client="app", **fields):
        self.watcher.publish(
            f"{self.daemon.client(client)}/request/{name}",
            {"prompt": prompt, "stream": True, "max_tokens": 4000, **fields},
        )

    def event(self, name, kind, client="app"):
        topic = f"{self.daemon.client(client)}/event/{name}"
        return self.watcher.wait(lambda m: m.topic == topic and m.json["type"] == kind).json

    def final(self, name, client="app"):
        return self.watcher.reply(f"{self.daemon.client(client)}/reply/{name}").json

    def queue(self, holds):
        topic = f"rkllm/{self.daemon.node}/queue"
        return self.watcher.wait(lambda m: m.topic == topic and holds(m.json)).json


@pytest.fixture
def admin(launch):
    # Without a pace for all models: theirs lets the tests act in the middle of an answer.
    return Administrator(*launch(environment={"RKLLM_SIM_PROFILE": ""}, **CONFIG))


def test_the_state_is_answered_as_it_is_retained(admin):
    assert admin.do("info")["node"] == admin.daemon.node
    health = admin.do("health")
    assert (health["model_loaded"], health["status"]) == ("faulty", "healthy")
    assert health["worker"]["pid"] == admin.daemon.worker_pid(admin.watcher)
    queue = admin.do("queue")
    assert (queue["state"], queue["length"], queue["accepting"]) == ("idle", 0, True)


def test_pause_stops_what_waits_but_not_what_runs_and_resume_lets_it_go(admin):
    admin.send("running", "count to 60")
    admin.event("running", "started")
    assert admin.do("pause") == {"state": "paused"}
    admin.send("waits")
    assert admin.event("waits", "accepted")["position"] == 1
    assert admin.final("running")["status"] == "ok"
    queue = admin.queue(lambda queue: queue["state"] == "paused" and not queue["running"])
    assert (queue["length"], queue["accepting"]) == (1, True)
    assert not admin.watcher.on(f"{admin.daemon.client('app')}/reply/waits")
    assert admin.do("resume") == {"state": "busy"}
    assert admin.final("waits")["text"] == "hello"


def test_drain_refuses_what_is_new_and_works_off_what_waits(admin):
    admin.send("running", "endless")
    admin.event("running", "started")
    admin.send("waits")
    admin.event("waits", "accepted")
    assert admin.do("drain") == {"state": "draining"}
    admin.send("new")
    error = admin.final("new")["error"]
    assert (error["code"], error["retryable"]) == ("paused", True)
    assert not admin.queue(lambda queue: queue["state"] == "draining")["accepting"]
    admin.do("cancel", running=True)
    assert admin.final("waits")["text"] == "hello"
    assert admin.do("resume") == {"state": "idle"}
    admin.send("new")
    assert admin.watcher.wait(
        lambda m: m.topic == f"{admin.daemon.client('app')}/reply/new" and m.json["status"] == "ok"
    )


def test_cancel_takes_one_the_running_or_all(admin):
    admin.send("running", "endless")
    admin.event("running", "started")
    for name in ("a", "b", "c"):
        admin.send(name)
        admin.event(name, "accepted")
    assert admin.do("cancel", client="app", id="b") == {
        "cancelled": [{"client": "app", "id": "b"}],
        "count": 1,
    }
    assert admin.final("b")["error"]["code"] == "cancelled"
    assert "no such" in admin.ask("cancel", client="app", id="b")["error"]
    assert "no such" in admin.ask("cancel", client="other", id="a")["error"]
    assert admin.ask("cancel")["status"] == "error"
    admin.send("other", "endless", client="box")
    admin.event("other", "accepted", client="box")
    assert admin.do("cancel", running=True)["count"] == 1
    assert admin.final("running")["error"]["code"] == "cancelled"
    admin.event("other", "started", client="box")
    assert admin.do("cancel", all=True)["cancelled"] == [{"client": "box", "id": "other"}]
    assert admin.final("other", client="box")["error"]["code"] == "cancelled"
    for name in ("a", "c"):
        assert admin.final(name)["text"] == "hello"


def test_a_model_is_loaded_now_and_jobs_bring_theirs_back(admin):
    assert admin.do("model", id="plain") == {"model": "plain"}
    topic = f"rkllm/{admin.daemon.node}/info"
    admin.watcher.wait(
        lambda m: m.topic == topic and [x["loaded"] for x in m.json["models"]] == [False, True]
    )
    admin.send("q1", model="faulty")
    assert admin.final("q1")["model"] == "faulty"
    assert "no model" in admin.ask("model", id="other")["error"]


def test_restart_worker_gives_a_new_process_and_runs_the_job_again(admin):
    before = admin.daemon.worker_pid(admin.watcher)
    admin.send("running", "count to 300")
    admin.event("running", "started")
    assert admin.do("restart_worker") == {"model": "faulty"}
    assert admin.event("running", "restarted")["attempt"] == 2
    final = admin.final("running")
    assert (final["status"], final["attempt"]) == ("ok", 2)
    assert admin.daemon.worker_pid(admin.watcher) != before
    assert admin.do("health")["worker"]["restarts"] == 0


def test_restart_begins_anew_and_loses_nothing(admin):
    boot_id = admin.do("info")["boot_id"]
    admin.do("pause")
    admin.send("waits")
    admin.event("waits", "accepted")
    assert admin.do("restart") == {}
    topic = f"rkllm/{admin.daemon.node}/info"
    assert admin.watcher.wait(lambda m: m.topic == topic and m.json["boot_id"] != boot_id)
    assert admin.final("waits")["text"] == "hello"
    status = [m.payload for m in admin.watcher.on(f"rkllm/{admin.daemon.node}/status")]
    assert status[-3:] == [b"online", b"offline", b"online"]


def test_the_level_of_the_log_is_set_and_never_shows_content(admin):
    assert admin.do("log_level", level="debug") == {"level": "debug"}
    admin.send("q1", "say: the secret word")
    assert admin.final("q1")["text"] == "the secret word"
    assert "secret" not in admin.daemon.log
    assert admin.ask("log_level", level="everything")["status"] == "error"
    os.kill(admin.daemon.process.pid, signal.SIGTERM)
    assert admin.daemon.process.wait(30) == 0
