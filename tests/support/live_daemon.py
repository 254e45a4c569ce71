"""A real daemon process on a real broker."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from live_client import PATIENCE_S, Client, Received
from ready_python import Forked, Kind, may_fork, ready_python


class Daemon:
    """One daemon with its own node, journal and configuration; can be killed and started again."""

    def __init__(
        self, folder: Path, port: int, node: str, config: dict[str, Any], environment: dict[str, str]
    ) -> None:
        self.node = node
        self.port = port
        self.folder = folder
        self.environment = environment
        self.python = sys.executable
        """What runs it; another one where the tests themselves run on another Python."""
        self.afresh = False
        """It starts as a command does, imports and all, and not as a fork of a Python that is ready."""
        self.config_file = folder / "config.yaml"
        settings: dict[str, Any] = {
            "node": node,
            "mqtt": {"port": port, "keepalive_s": 10, "reconnect_max_s": 1},
            "journal": {"path": str(folder / "journal.db"), "ballast_mb": 0},
            "admin": {"enabled": True},
        }
        for key, value in config.items():
            settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
        self.config_file.write_text(yaml.safe_dump(settings))
        self._kind: Kind = "command" if "tls" in settings["mqtt"] else "daemon"
        self.process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def log_file(self) -> Path:
        """Return where its log goes."""
        return self.folder / "daemon.log"

    @property
    def log(self) -> str:
        """Return the log so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def client(self, name: str) -> str:
        """Return the mailbox of a client."""
        return f"rkllm/{self.node}/client/{name}"

    def spawn(self) -> None:
        """Start the process without waiting."""
        words = ["run", "--config", str(self.config_file), "--log-level", "debug"]
        with self.log_file.open("ab") as log, Path(os.devnull).open() as nothing:
            if self.python == sys.executable and not self.afresh and may_fork(self.environment):
                self.process = ready_python(self._kind).spawn(
                    words, self.environment, Path.cwd(), nothing.fileno(), log.fileno(), log.fileno()
                )
                return
            line = [self.python, "-P", "-m", "rkllm_mqtt", *words]
            self.process = subprocess.Popen(line, stdout=log, stderr=log, env=self.environment)

    def start(self, watcher: Client) -> None:
        """Start, and wait until it is online and its model is loaded."""
        before = len(self._told(watcher))
        self.spawn()
        self.until_loaded(watcher, before)

    def until_loaded(self, watcher: Client, before: int = 0) -> None:
        """Wait until it tells a loaded model, by an `info` after the first `before` ones."""
        until = time.monotonic() + PATIENCE_S
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            infos = self._told(watcher)[before:]
            if any(model["loaded"] for info in infos[-1:] for model in info.json["models"]):
                return
            assert time.monotonic() < until, self.log
            watcher.wait_next(0.5)

    def until_logged(self, words: str, times: int = 1) -> None:
        """Wait until its log so far has these words in so many lines."""
        until = time.monotonic() + PATIENCE_S
        while self.log.count(words) < times:
            assert time.monotonic() < until, self.log
            select.select([], [], [], 0.01)

    def _told(self, watcher: Client) -> list[Received]:
        """Return every `info` so far but what the broker kept of an earlier life, which may come late."""
        return [message for message in watcher.on(f"rkllm/{self.node}/info") if not message.retain]

    def worker_pid(self, watcher: Client) -> int:
        """Return the process id of the worker that runs now."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[-1])

    def kill(self) -> None:
        """End the process as a power cut would."""
        self.stop(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process with a signal; return its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(40)
        self.process = None
        return status


def check_answer(client: Client, mailbox: str, request_id: str, *, topic_id: bool = True) -> Any:
    """Assert what protocol 1.0 promises of one streamed answer, and return its final.

    One final; the valid deltas are gapless and join to its text; lower attempts and what follows the final
    are ignored, as a client must.
    """
    tail = f"/{request_id}" if topic_id else ""
    final = client.reply(f"{mailbox}/reply{tail}").json
    assert final["id"] == request_id
    deltas = [m.json for m in client.on(f"{mailbox}/delta{tail}") if m.json["id"] == request_id]
    valid = [delta for delta in deltas if delta["attempt"] == final["attempt"]]
    assert [delta["seq"] for delta in valid] == list(range(final["deltas"])), json.dumps(deltas)
    if final["deltas"]:
        assert "".join(delta.get("text", "") for delta in valid) == final["text"]
        assert "".join(delta.get("thinking", "") for delta in valid) == final["thinking"]
    return final
