"""The promise of `commanding.py`: what an administrator asks for over MQTT is done and answered."""

import uuid

import pytest
from live_slot import MODELS

CONFIG = {
    "models": [{"id": name, "file": str(MODELS / f"{name}.sim")} for name in ("faulty", "plain")],
    "delta_interval_ms": 0,
}


class Administrator:
    """Commands with their responses, and a sender of its own; hears everything of the node."""

    def __init__(self, daemon, watcher):
        self.daemon, self.watcher = daemon, watcher
        self.client = f"c{uuid.uuid4().hex[:12]}"

    def ask(self, command, **arguments):
        """Return the response to one command."""
        base, transaction = f"rkllm/{self.daemon.node}/admin", uuid.uuid4().hex
        self.watcher.publish(f"{base}/request/{command}", {"transaction": transaction, **arguments})
        return self.watcher.wait(
            lambda m: m.topic == f"{base}/response/{command}" and m.json["transaction"] == transaction
        ).json

    def do(self, command, **arguments):
        """Return the data of a command that succeeds."""
        response = self.ask(command, **arguments)
        assert response["status"] == "ok", response
        return response["data"]

    def topic(self, kind, name, suffix=""):
        return f"{self.daemon.client(self.client + suffix)}/{kind}/{name}"

    def send(self, name, prompt="say: hello", suffix="", **fields):
        payload = {"prompt": prompt, "stream": True, "max_tokens": 4000, "model": "faulty", **fields}
        self.watcher.publish(self.topic("request", name, suffix), payload)

    def event(self, name, kind, suffix=""):
        topic = self.topic("event", name, suffix)
        return self.watcher.wait(lambda m: m.topic == topic and m.json["type"] == kind).json

    def final(self, name, suffix=""):
        return self.watcher.reply(self.topic("reply", name, suffix)).json

    def state(self, name, holds):
        """Return the members of a retained topic once they are as they should be."""
        topic = f"rkllm/{self.daemon.node}/{name}"
        return self.watcher.wait(lambda m: m.topic == topic and not m.retain and holds(m.json)).json


@pytest.fixture(scope="module")
def commanded(online):
    """One daemon for all commands; each test leaves it as it was."""
    # Without a pace for all models: theirs lets the tests act in the middle of an answer.
    with online("commanded", {"RKLLM_SIM_PROFILE": ""}, **CONFIG) as daemon:
        yield daemon


@pytest.fixture
def admin(commanded, connect):
    return Administrator(commanded, connect(f"rkllm/{commanded.node}/#"))


def test_the_state_is_answered_as_it_is_retained(admin):
    assert admin.do("info")["node"] == admin.daemon.node
    health = admin.do("health")
    assert health["status"] == "healthy"
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
    queue = admin.state("queue", lambda queue: queue["state"] == "paused" and not queue["running"])
    assert (queue["length"], queue["accepting"]) == (1, True)
    assert not admin.watcher.on(admin.topic("reply", "waits"))
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
    assert not admin.do("queue")["accepting"]
    admin.do("cancel", running=True)
    assert admin.final("waits")["text"] == "hello"
    assert admin.do("resume") == {"state": "idle"}
    admin.send("new")
    topic = admin.topic("reply", "new")
    assert admin.watcher.wait(lambda m: m.topic == topic and m.json["status"] == "ok")


def test_cancel_takes_one_the_running_or_all(admin):
    admin.send("running", "endless")
    admin.event("running", "started")
    for name in ("a", "b", "c"):
        admin.send(name)
        admin.event(name, "accepted")
    one = {"client": admin.client, "id": "b"}
    assert admin.do("cancel", **one) == {"cancelled": [one], "count": 1}
    assert admin.final("b")["error"]["code"] == "cancelled"
    assert "no such" in admin.ask("cancel", **one)["error"]
    assert "no such" in admin.ask("cancel", client="other", id="a")["error"]
    assert "all: true" in admin.ask("cancel", all="yes")["error"]
    assert admin.do("cancel", running=True)["count"] == 1
    assert admin.final("running")["error"]["code"] == "cancelled"
    for name in ("a", "c"):
        assert admin.final(name)["text"] == "hello"
    admin.send("other", "endless", suffix="x")
    admin.event("other", "started", suffix="x")
    assert admin.do("cancel", all=True)["cancelled"] == [{"client": admin.client + "x", "id": "other"}]
    assert admin.final("other", suffix="x")["error"]["code"] == "cancelled"


def test_a_model_is_loaded_now_and_jobs_bring_theirs_back(admin):
    assert admin.do("model", id="plain") == {"model": "plain"}
    admin.state("info", lambda info: [model["loaded"] for model in info["models"]] == [False, True])
    admin.send("q1", model="faulty")
    assert admin.final("q1")["model"] == "faulty"
    assert "no model" in admin.ask("model", id="other")["error"]


def test_probe_tells_what_is_known_of_caches_and_asks_anew(admin):
    name = admin.do("probe", again=True)["model"]
    while not (told := admin.do("probe", id=name))["probed"]:
        pass
    assert (told["failed"], told["facts"]["reuses_finished"], told["facts"]["granularity"]) == ([], True, 1)
    assert "there is no model" in admin.ask("probe", id="absent")["error"]


def test_restart_worker_gives_a_new_process_and_runs_the_job_again(admin):
    before = admin.do("health")["worker"]
    admin.send("running", "count to 100")
    admin.event("running", "started")
    assert admin.do("restart_worker") == {"model": "faulty"}
    assert admin.event("running", "restarted")["attempt"] == 2
    final = admin.final("running")
    assert (final["status"], final["attempt"]) == ("ok", 2)
    after = admin.do("health")["worker"]
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"]


def test_restart_begins_anew_and_loses_nothing(admin):
    boot_id = admin.do("info")["boot_id"]
    admin.do("pause")
    admin.send("waits")
    admin.event("waits", "accepted")
    assert admin.do("restart") == {}
    admin.state("info", lambda info: info["boot_id"] != boot_id)
    assert admin.final("waits")["text"] == "hello"
    status = [m.payload for m in admin.watcher.on(f"rkllm/{admin.daemon.node}/status")]
    assert status == [b"online", b"offline", b"online"]


def test_the_level_of_the_log_is_set_and_never_shows_content(admin):
    assert admin.do("log_level", level="debug") == {"level": "debug"}
    admin.send("q1", "say: the secret word")
    assert admin.final("q1")["text"] == "the secret word"
    assert "secret" not in admin.daemon.log
    assert admin.ask("log_level", level="everything")["status"] == "error"


SYSTEM = [{"role": "system", "content": "You are the voice of a house."}]


def test_a_cache_is_created_by_name_listed_and_deleted(admin):
    created = admin.do("cache_create", name="voice", messages=SYSTEM, model="plain")
    assert created == {"name": "voice", "state": "registered"}
    assert {"client": "admin", "name": "voice", "model": "plain"} in admin.do("caches")["prefixes"]
    assert admin.do("cache_create", name="voice", messages=SYSTEM, model="plain")["state"] == "unchanged"
    assert admin.do("cache_delete", name="voice") == {"name": "voice"}
    assert admin.do("caches")["prefixes"] == []


@pytest.mark.parametrize(
    ("command", "arguments", "reason"),
    [
        ("cache_create", {"name": "../voice", "messages": SYSTEM}, "not a valid name"),
        ("cache_create", {"name": "voice"}, "messages are missing"),
        ("cache_create", {"name": "voice", "messages": SYSTEM, "model": "gpt"}, "gpt"),
        ("cache_create", {"name": 5, "messages": SYSTEM}, "name"),
        ("cache_create", {"name": "voice", "messages": [{"role": "king", "content": "x"}]}, "role"),
        ("cache_delete", {"name": "unknown"}, "no such cache"),
        ("cache_delete", {"file": "../journal.db"}, "no such file"),
        ("cache_delete", {}, "name"),
    ],
)
def test_caches_are_refused_with_the_reason(admin, command, arguments, reason):
    response = admin.ask(command, **arguments)
    assert response["status"] == "error"
    assert reason in response["error"]


def test_the_tiers_are_told_with_what_they_hold(admin):
    told = admin.do("caches")
    counts = {"restores", "saves", "failures"}
    assert set(told) == {"files", "prefixes", "tiers", "disk_written_today_mb", *counts}
    assert told["tiers"]["disk"] == {"mb": 0.0, "budget_mb": 3500}
