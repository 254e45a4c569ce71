"""The promise of `reload.py`: SIGHUP changes what can change and says what cannot; a mistake nothing."""

import signal
import time
import uuid

import pytest
import yaml
from live_client import PATIENCE_S


class Running:
    """A daemon whose file can be changed."""

    def __init__(self, daemon, watcher):
        self.daemon, self.watcher = daemon, watcher
        self.settings = yaml.safe_load(self.daemon.config_file.read_text())
        self.name = uuid.uuid4().hex[:12]

    @property
    def answers(self):
        """Return how often the daemon has said what it made of its file."""
        log = self.daemon.log
        return log.count("config_reloaded") + log.count("config_refused")

    def topic(self, name):
        return f"rkllm/{self.daemon.node}/{name}"

    def change(self, text=None, **settings):
        """Write the file, send SIGHUP, wait until the daemon has said what it made of it."""
        changed = {
            key: {**self.settings.get(key, {}), **value}
            if isinstance(value, dict) and key != "presets"
            else value
            for key, value in settings.items()
        }
        self.daemon.config_file.write_text(text or yaml.safe_dump({**self.settings, **changed}))
        before = self.answers
        self.daemon.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + PATIENCE_S
        while self.answers == before:
            assert time.monotonic() < until, self.daemon.log
            assert self.daemon.process.poll() is None, self.daemon.log
            self.watcher.wait_next(0.1)

    def until(self, name, holds):
        """Return the newest state of a topic when it is as wanted."""
        until = time.monotonic() + PATIENCE_S
        self.watcher.reply(self.topic(name))
        while not holds(newest := self.watcher.on(self.topic(name))[-1].json):
            assert time.monotonic() < until, newest
            self.watcher.wait_next(1)
        return newest

    def ask(self, client, request_id, payload):
        """Return the outcome of a request."""
        box = self.daemon.client(f"{client}-{self.name}")
        self.watcher.publish(f"{box}/request/{request_id}", payload)
        return self.watcher.reply(f"{box}/reply/{request_id}")


@pytest.fixture(scope="module")
def daemon(online):
    with online("reload", afresh=True, runtime={"restart_max_s": 1}) as daemon:
        yield daemon


@pytest.fixture
def running(daemon, connect):
    """The daemon as it has begun; the file is put back, and read again."""
    running = Running(daemon, connect(f"rkllm/{daemon.node}/#"))
    yield running
    running.change()


def reasons(health):
    return {reason["code"]: reason["message"] for reason in health["reasons"]}


def test_limits_presets_and_clients_change_without_a_restart(running):
    pid = running.daemon.process.pid
    assert running.ask("app", "q1", {"prompt": "say: " + "x" * 400}).json["status"] == "ok"
    running.change(
        limits={"request_bytes": 300, "max_tokens": 9, "client_waiting": 7},
        presets={"calm": {"temperature": 0.1}},
    )
    info = running.until("info", lambda info: info["presets"] == ["calm"])
    limits = info["limits"]
    assert (limits["request_bytes"], limits["max_tokens"], limits["client_waiting"]) == (300, 9, 7)
    assert running.ask("app", "q2", {"prompt": "say: " + "x" * 400}).json["error"]["code"] == "too_large"
    assert "calm" in running.ask("app", "q3", {"prompt": "hi", "preset": "balanced"}).json["error"]["hint"]
    assert running.ask("app", "q4", {"prompt": "count to 60"}).json["usage"]["completion_tokens"] == 9
    running.change(limits={"requests_per_s": 0.001, "requests_burst": 1, "requests_burst_alone": 1})
    running.ask("app", "a", {"prompt": "say: a"})
    assert running.ask("app", "b", {"prompt": "say: b"}).json["error"]["code"] == "rate_limited"
    running.change(clients=[{"name": "esp-*", "format": "text"}])
    # What was an object of JSON is a text from now on.
    assert running.ask("esp-1", "q5", b'{"a": 1}').payload.startswith(b"You said")
    assert running.daemon.process.pid == pid
    assert "config_reloaded changed=limits.client_waiting,limits.max_tokens," in running.daemon.log


def test_holds_change_without_a_restart(running):
    wish = {"warm": True, "hold_s": 6, "priority": "interactive"}
    wish["messages"] = [{"role": "system", "content": "You are the voice of a house."}]

    def granted(name, wanted):
        # A run that gave way holds nothing: then it is asked for once more.
        told = (running.ask("voice", f"{name}-{n}", wish).json["prefix"]["hold_s"] for n in range(5))
        return next((seconds for seconds in told if seconds == wanted), None)

    assert granted("w1", 6) == 6
    running.change(policy={"hold_max_s": 2})
    assert granted("w2", 2) == 2
    running.change(policy={"hold_share": 0})
    assert granted("w3", 0) == 0
    assert "config_needs_restart" not in running.daemon.log


def test_models_change_without_a_restart(running, tmp_path):
    file = tmp_path / "new.sim"
    file.write_text('rkllm-simulator 1\nprofile: instant\nalways: reply "new"\n')
    running.change(models=[{"id": "new", "file": str(file)}], clients=[{"name": "c*", "model": "new"}])
    running.until("info", lambda info: [model["id"] for model in info["models"]] == ["new"])
    assert running.ask("c", "q1", {"prompt": "hi"}).json["text"] == "new"
    assert running.ask("c", "q2", {"prompt": "hi", "model": "demo"}).json["error"]["code"] == "unknown_model"
    running.change()
    running.until("info", lambda info: [model["id"] for model in info["models"]] == ["demo"])
    assert running.ask("c", "q3", {"prompt": "hi", "model": "new"}).json["error"]["code"] == "unknown_model"
    assert running.ask("c", "q4", {"prompt": "say: old"}).json["text"] == "old"


def test_what_needs_a_restart_is_told_until_it_is_taken_back(running):
    running.change(mqtt={"keepalive_s": 77}, delta_interval_ms=7)
    assert "config_needs_restart keys=mqtt.keepalive_s\n" in running.daemon.log
    health = running.until("health", lambda health: "restart_needed" in reasons(health))
    assert reasons(health)["restart_needed"] == "changed in the file, not yet in force: mqtt.keepalive_s"
    assert health["status"] == "degraded"
    assert running.ask("app", "q1", {"prompt": "say: hello"}).json["text"] == "hello"
    running.change(delta_interval_ms=7)
    running.until("health", lambda health: health["status"] == "healthy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limits: {queue_length: many}", "limits.queue_length"),
        ("limits: [", "not valid YAML"),
        ("models_: []", "models_"),
    ],
)
def test_a_file_with_a_mistake_changes_nothing_and_says_where_it_is(running, text, said):
    running.change(text)
    health = running.until("health", lambda health: "config_invalid" in reasons(health))
    assert said in reasons(health)["config_invalid"]
    assert "config.yaml:1" in reasons(health)["config_invalid"]
    assert running.ask("app", "q1", {"prompt": "say: hello"}).json["text"] == "hello"
    running.change()
    running.until("health", lambda health: health["status"] == "healthy")


def test_a_file_that_is_gone_changes_nothing(running):
    running.daemon.config_file.unlink()
    running.daemon.process.send_signal(signal.SIGHUP)
    running.until("health", lambda health: "config_invalid" in reasons(health))
    assert running.daemon.process.poll() is None
