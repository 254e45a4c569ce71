"""The promise of `config/mosquitto.conf` and `mosquitto.acl`: nobody gets further than it says."""

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from live_client import Client
from live_daemon import Daemon
from live_sample import SampleBroker, password_of
from ready_python import ready_python

from rkllm_mqtt.core.homeassistant import discovery_topic

NODE = "board"
BOX = f"rkllm/{NODE}/client/kitchen"
REFUSED = "Not authorized"
TAKEN = ("Success", "No matching subscribers")


class Home:
    """A broker on the sample configuration, the daemon on it, and clients that sign in."""

    def __init__(self, folder: Path, **acl: str) -> None:
        self.broker = SampleBroker(folder / "broker", acl)
        self.broker.start()
        self._clients: dict[str, Client] = {}
        folder.joinpath("daemon").mkdir()
        self._password_files = {}
        for user in ("rkllm-mqtt", "rkllm-cli"):
            self._password_files[user] = folder / f"{user}.password"
            self._password_files[user].write_text(password_of(user) + "\n")
        environment = {**os.environ, "RKLLM_SIM_PROFILE": "instant"}
        self.daemon = Daemon(folder / "daemon", self.broker.port, NODE, {"mqtt": self.mqtt()}, environment)

    def mqtt(self, **more: object) -> dict[str, object]:
        """Return the section `mqtt` that the sample's comments describe."""
        return {
            "host": "localhost",
            "username": "rkllm-mqtt",
            "password_file": str(self._password_files["rkllm-mqtt"]),
            "tls": {"ca_file": str(self.broker.ca_file)},
            "commands_username": "rkllm-cli",
            "commands_password_file": str(self._password_files["rkllm-cli"]),
            **more,
        }

    def sign_in(self, user: str, *filters: str, client_id: str = "") -> Client:
        """Return a client of this user that the broker has taken; an earlier one of the user is closed."""
        if user in self._clients:
            self._clients[user].close()
        signed = (user, password_of(user))
        client = Client(self.broker.port, user=signed, ca_file=self.broker.ca_file, client_id=client_id)
        self._clients[user] = client
        assert client.refusal() == "Success"
        return client.subscribe(*filters)

    def command(self, *words: str, config: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command with the daemon's configuration."""
        line = [words[0], "--config", str(config or self.daemon.config_file), *words[1:]]
        return ready_python().run(line, os.environ, Path.cwd(), b"", 60)

    def close(self) -> None:
        """End everything."""
        self.daemon.stop()
        for client in self._clients.values():
            client.close()
        self.broker.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose daemon is online."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.daemon.start(home.sign_in("admin", "rkllm/#"))
    yield home
    home.close()
    assert "Traceback" not in home.daemon.log
    assert "refused" not in home.daemon.log


def test_a_client_asks_in_its_own_mailbox_and_gets_its_answer(home):
    kitchen = home.sign_in("kitchen", f"{BOX}/+/#", f"rkllm/{NODE}/+")
    assert kitchen.try_publish(f"{BOX}/request/q1", {"prompt": "Hello", "stream": True}) in TAKEN
    assert kitchen.reply(f"{BOX}/reply/q1").json["status"] == "ok"
    assert kitchen.on(f"{BOX}/delta/q1")
    assert kitchen.on(f"{BOX}/event/q1")
    assert kitchen.try_publish(f"{BOX}/cancel", "unknown") in TAKEN
    for state in ("status", "info", "queue", "health", "stats"):
        assert kitchen.reply(f"rkllm/{NODE}/{state}").payload


def test_a_client_can_neither_write_nor_read_anothers_mailbox_nor_use_admin(home):
    spy = home.sign_in("hall", "#", "rkllm/#", f"{BOX}/#", f"rkllm/{NODE}/admin/#", "homeassistant/#")
    kitchen = home.sign_in("kitchen", f"{BOX}/#")
    for topic in (
        f"{BOX}/request/x1", f"{BOX}/cancel/x1", f"{BOX}/reply/x1", f"{BOX}/event/x1", f"{BOX}/last",
        f"rkllm/{NODE}/client/hall/reply/x1", f"rkllm/{NODE}/admin/request/pause",
        f"rkllm/{NODE}/admin/response/pause", f"rkllm/{NODE}/status", f"rkllm/{NODE}/info",
        "homeassistant/status", discovery_topic("homeassistant", NODE), "rkllm/other/client/kitchen/request",
    ):  # fmt: skip
        assert spy.try_publish(topic, "offline") == REFUSED, topic
    assert kitchen.try_publish(f"{BOX}/request/secret", {"prompt": "secret", "retain": True}) in TAKEN
    kitchen.reply(f"{BOX}/reply/secret")
    # What the spy is given comes behind everything that it might have been given.
    own = f"rkllm/{NODE}/client/hall"
    assert spy.try_publish(f"{own}/request/end", "end") in TAKEN
    spy.reply(f"{own}/reply/end")
    late = home.sign_in("kitchen", f"{BOX}/last")
    assert late.reply(f"{BOX}/last").json["id"] == "secret"
    foreign = [m.topic for m in spy.messages if "/client/kitchen" in m.topic or "/admin/" in m.topic]
    assert foreign == []
    assert not [m for m in spy.messages if m.topic.startswith("homeassistant")]


def test_a_redirected_answer_stays_in_the_mailbox(home):
    own = f"rkllm/{NODE}/client/hall"
    hall = home.sign_in("hall", f"{own}/#")
    hall.publish(f"{own}/request/r1", {"prompt": "x"}, ResponseTopic=f"{BOX}/reply/r1")
    assert hall.reply(f"{own}/reply/r1").json["error"]["code"] == "reply_topic_denied"


def test_nobody_takes_the_daemons_session_over_by_its_client_id(home):
    client_id = _client_id(home.daemon.folder / "journal.db")
    thief = home.sign_in("hall", client_id=client_id)
    assert thief.try_publish(f"{BOX}/request/t1", "x") == REFUSED
    kitchen = home.sign_in("kitchen", f"{BOX}/#")
    kitchen.publish(f"{BOX}/request/after-thief", {"prompt": "x"})
    assert kitchen.reply(f"{BOX}/reply/after-thief").json["status"] == "ok"
    health = kitchen.subscribe(f"rkllm/{NODE}/health").reply(f"rkllm/{NODE}/health")
    assert health.json["broker"]["reconnects"] == 0
    assert "broker_lost" not in home.daemon.log


def test_who_has_no_name_or_another_password_is_refused(home):
    for user in (None, ("kitchen", "wrong"), ("rkllm-mqtt", ""), ("nobody", "x")):
        secured = {"ca_file": home.broker.ca_file, "reconnect_on_failure": False}
        client = Client(home.broker.port, user=user, **secured)
        assert client.refusal() == REFUSED, user
        client.close()


def test_without_encryption_nobody_is_heard(home):
    bare = Client(home.broker.port, reconnect_on_failure=False)
    assert bare.lost()
    bare.close()


def test_home_assistant_finds_the_device_and_the_daemon_hears_of_its_start(home):
    topic = discovery_topic("homeassistant", NODE)
    assistant = home.sign_in("homeassistant", "homeassistant/#", f"rkllm/{NODE}/+")
    assert assistant.reply(topic).json["components"]
    assert assistant.reply(f"rkllm/{NODE}/status").payload == b"online"
    before = len(assistant.on(topic))
    assert assistant.try_publish("homeassistant/status", "online") in TAKEN
    assistant.wait_many(lambda m: m.topic == topic, before + 1)
    box = f"rkllm/{NODE}/client/homeassistant"
    assistant.subscribe(f"{box}/+/#")
    assert assistant.try_publish(f"{box}/request", "Hello") in TAKEN
    assert assistant.reply(f"{box}/reply").payload


def test_the_administrator_commands(home):
    admin = home.sign_in("admin", f"rkllm/{NODE}/admin/response/#")
    assert admin.try_publish(f"rkllm/{NODE}/admin/request/queue", {"transaction": "t"}) in TAKEN
    assert admin.reply(f"rkllm/{NODE}/admin/response/queue").json["transaction"] == "t"


def test_prompts_wait_for_a_daemon_that_is_away_and_ask_does_not_eat_them(tmp_path):
    home = Home(tmp_path)
    try:
        watcher = home.sign_in("admin", "rkllm/#")
        home.daemon.start(watcher)
        kitchen = home.sign_in("kitchen", f"{BOX}/#")
        home.daemon.kill()
        kitchen.publish(f"{BOX}/request/waiting", {"prompt": "x"})
        # `ask` signed in as the daemon: it sees whose session it would get, and leaves it alone.
        config = yaml.safe_load(home.daemon.config_file.read_text())
        config["mqtt"] = home.mqtt(commands_username="rkllm-mqtt", commands_password_file=None)
        config["mqtt"]["port"] = home.broker.port
        config["mqtt"]["commands_password_file"] = config["mqtt"]["password_file"]
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(yaml.safe_dump(config))
        asked = home.command("ask", "hello", config=wrong)
        assert asked.returncode != 0
        assert b"commands_username" in asked.stderr
        home.daemon.start(watcher)
        assert kitchen.reply(f"{BOX}/reply/waiting").json["status"] == "ok"
        # With the user of its own it is answered, and the daemon notices nothing.
        asked = home.command("ask", "hello", "--json")
        assert (asked.returncode, json.loads(asked.stdout)["status"]) == (0, "ok"), asked.stderr
        assert home.command("ask", "again").returncode == 0  # nothing of the first was left behind
    finally:
        home.close()


def test_the_daemon_and_the_doctor_notice_what_may_not_be_published(tmp_path):
    home = Home(tmp_path, **{"topic readwrite rkllm/#": f"topic read rkllm/#\ntopic write rkllm/{NODE}/+"})
    try:
        watcher = home.sign_in("admin", "rkllm/#")
        home.daemon.start(watcher)
        kitchen = home.sign_in("kitchen", f"{BOX}/#")
        kitchen.publish(f"{BOX}/request/q1", {"prompt": "x"})
        health = watcher.wait(lambda m: m.topic.endswith("/health") and b"publish_refused" in m.payload).json
        reason = next(reason for reason in health["reasons"] if reason["code"] == "publish_refused")
        assert "client/+/" in reason["message"]  # not the client's name: `health` is for everybody
        assert health["status"] == "degraded"
        # `health` may have come behind the refusal of an event, and before that of the answer.
        home.daemon.until_logged(f"publish_refused topic={BOX}/reply/q1")
        doctor = home.command("doctor", "--json")
        found = {line["check"]: line for line in json.loads(doctor.stdout)}
        assert found["write answers"]["level"] == "fail"
    finally:
        home.close()


def _client_id(journal: Path) -> str:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'client_id'").fetchone()[0])
