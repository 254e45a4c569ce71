"""Nobody reads what is not for him: secrets and texts are marked, and the marks searched in all that is left.

Level debug, with crashes, refusals and an administrator at work.
"""

import json
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from live_client import PATIENCE_S, Client
from live_daemon import Daemon
from live_slot import MODELS
from ready_python import ready_python

NODE = "vault"
BOX = f"rkllm/{NODE}/client/kitchen"


def mark(what: str) -> str:
    """Return a word that stands nowhere else."""
    return f"mark-{what}-{uuid.uuid4().hex}"


PASSWORDS = {name: mark(name) for name in ("file", "environment", "url")}
TEXTS = {
    name: mark(name)
    for name in (
        *("prompt", "bare", "system", "result", "call", "broken-json", "wrong-type", "wrong-id", "client"),
        *("response-topic", "correlation", "property", "cancel", "admin", "crash", "reply"),
    )
}


@pytest.fixture(params=["file", "environment"])
def guarded(request, own_broker, tmp_path):
    """Return a running daemon that signs in with a marked password, and clients that hear everything."""
    real = PASSWORDS[request.param]
    program = shutil.which("mosquitto_passwd") or "mosquitto_passwd"
    for number, user in enumerate(("daemon", "watcher")):
        first = [] if number else ["-c"]
        subprocess.run([program, *first, "-b", tmp_path / "passwd", user, real], check=True)
    broker = own_broker(extra=f"allow_anonymous false\npassword_file {tmp_path / 'passwd'}")
    (tmp_path / "password").write_text(PASSWORDS["file"])
    environment = {**os.environ, "RKLLM_MQTT_URL": f"mqtt://daemon:{PASSWORDS['url']}@127.0.0.1"}
    if request.param == "environment":
        environment["RKLLM_MQTT_PASSWORD"] = PASSWORDS["environment"]
    config = {
        "mqtt": {"username": "daemon", "password_file": str(tmp_path / "password")},
        "models": [{"id": "m", "file": str(MODELS / "faulty.sim"), "system": TEXTS["system"]}],
        "runtime": {"max_attempts": 1, "simulator": True},
    }
    daemon = Daemon(tmp_path, broker.port, NODE, config, environment)
    daemon.afresh = True  # with a command line and an environment of its own that `ps` shows
    watcher = Client(broker.port, user=("watcher", real)).subscribe("#")
    daemon.start(watcher)
    yield daemon, watcher
    daemon.stop()
    watcher.close()


def talk(watcher: Client) -> None:
    """Send every kind of text, and wait until all of it has come to its end."""
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": json.dumps({"x": TEXTS["call"]})},
    }
    conversation = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": TEXTS["result"]},
        {"role": "user", "content": TEXTS["prompt"]},
    ]
    watcher.publish(f"{BOX}/request/q1", {"messages": conversation, "stream": True, "retain": True})
    watcher.publish(f"{BOX}/request", TEXTS["bare"])
    watcher.publish(f"{BOX}/request/q2", f'{{"prompt": "{TEXTS["broken-json"]}')
    watcher.publish(f"{BOX}/request/q3", {"prompt": "x", "max_tokens": TEXTS["wrong-type"]})
    watcher.publish(f"{BOX}/request/{TEXTS['wrong-id']}/x", {"prompt": "x"})
    watcher.publish(f"rkllm/{NODE}/client/{TEXTS['client']}!/request", "x")
    watcher.publish(f"{BOX}/request/q4", {"prompt": "x"}, ResponseTopic=TEXTS["response-topic"])
    echoes = {"CorrelationData": TEXTS["correlation"].encode(), "UserProperty": [("x-a", TEXTS["property"])]}
    watcher.publish(f"{BOX}/request/q5", {"prompt": "x"}, **echoes)
    watcher.publish(f"{BOX}/cancel", f'{{"id": "{TEXTS["cancel"]}')
    watcher.publish(f"{BOX}/request/q6", {"prompt": f"segfault {TEXTS['crash']}"})
    watcher.publish(f"{BOX}/request/q7", {"prompt": f"go wrong {TEXTS['crash']}"})
    watcher.publish(f"rkllm/{NODE}/admin/request/model", {"id": TEXTS["admin"]})
    for request in ("q1", "q2", "q3", "q4", "q5", "q6", "q7"):
        watcher.reply(f"{BOX}/reply/{request}")
    watcher.reply(f"rkllm/{NODE}/admin/response/model")
    assert TEXTS["prompt"] in watcher.reply(f"{BOX}/reply/q1").payload.decode()


def processes_of(daemon: Daemon) -> list[Path]:
    """Return the daemon's process and all below it."""
    assert daemon.process is not None
    found, todo = [], [daemon.process.pid]
    while todo:
        pid = todo.pop()
        found.append(Path(f"/proc/{pid}"))
        todo += map(int, (found[-1] / f"task/{pid}/children").read_text().split())
    return found


def leaks(text: str, marks: dict[str, str]) -> list[str]:
    """Return the names of the marks that stand in a text."""
    return [name for name, word in marks.items() if word in text]


def test_no_mark_is_found_where_it_does_not_belong(guarded):
    daemon, watcher = guarded
    everything = PASSWORDS | TEXTS
    talk(watcher)
    until = time.monotonic() + PATIENCE_S
    # The crash has taken the worker; the next one is the daemon's copy until its own program runs.
    while not (
        workers := [p for p in processes_of(daemon) if "runtime.worker" in (p / "cmdline").read_text()]
    ):
        assert time.monotonic() < until
        watcher.wait_next(0.1)
    for process in processes_of(daemon):
        assert leaks((process / "cmdline").read_text(), everything) == []
    for worker in workers:
        environment = (worker / "environ").read_text()
        assert leaks(environment, everything) == []
        assert "RKLLM_MQTT_" not in environment
        opened = [str(fd.readlink()) for fd in (worker / "fd").iterdir() if fd.is_symlink()]
        assert not [name for name in opened if "journal" in name or "password" in name]
    assert daemon.stop() == 0
    assert leaks(daemon.log, everything) == []
    assert "slot_lost" in daemon.log  # the log has something to tell
    assert " debug " in daemon.log
    for message in watcher.messages:
        if not message.topic.startswith((f"{BOX}/", f"rkllm/{NODE}/client/", f"rkllm/{NODE}/admin/")):
            assert leaks(f"{message.topic} {message.payload!r}", everything) == [], message
    # Passwords are nowhere at all, texts only with whom they concern and in the journal.
    for message in watcher.messages:
        assert leaks(message.payload.decode("utf-8", "replace"), PASSWORDS) == []
    for file in daemon.folder.glob("journal.db*"):
        assert file.stat().st_mode & 0o077 == 0, file
        content = file.read_bytes().decode("latin-1")
        assert leaks(content, PASSWORDS) == []
        if file.name != "journal.db":
            assert leaks(content, TEXTS) == [], file
    assert "prompt" in leaks((daemon.folder / "journal.db").read_bytes().decode("latin-1"), TEXTS)


@pytest.mark.parametrize("command", [["config", "check"], ["ask", "x"], ["doctor", "--json"], ["run"]])
def test_no_command_shows_a_password(command, tmp_path):
    secret = tmp_path / "password"
    secret.write_text(PASSWORDS["file"])
    config = tmp_path / "config.yaml"
    config.write_text(
        f"node: vault\nmqtt: {{port: 9, username: u, password_file: {secret}, connect_timeout_s: 1}}\n"
        f"journal: {{path: /proc/none/journal.db}}\n"
    )
    words = [command[0], *command[1:2], "--config", str(config), *command[2:]]
    environment = {**os.environ, "RKLLM_MQTT_URL": f"mqtt://u:{PASSWORDS['url']}@127.0.0.1:9"}
    done = ready_python().run(words, environment, tmp_path, b"", 60)
    said = (done.stdout + done.stderr).decode()
    assert leaks(said, PASSWORDS) == []
    assert said
