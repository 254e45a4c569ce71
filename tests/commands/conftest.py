"""A real broker, a small responder that speaks protocol 1.0, and commands as real processes."""

import fcntl
import itertools
import json
import os
import pty
import pwd
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from ready_python import may_fork, ready_python

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
TIMEOUT_S = 40.0 * float(os.environ.get("RKLLM_MQTT_TEST_TIME", "1"))
_numbers = itertools.count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_mosquitto(folder: Path, port: int, extra: str = "") -> subprocess.Popen[bytes]:
    """Start a broker on loopback and return when it takes connections."""
    config = folder / f"mosquitto-{port}.conf"
    # Started as root it would become another user, who may not read our folders.
    common = f"user {pwd.getpwuid(os.geteuid()).pw_name}\nmax_queued_messages 10000\nset_tcp_nodelay true\n"
    config.write_text(f"listener {port} 127.0.0.1\n{common}{extra}")
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            select.select([], [], [], 0.01)
        else:
            return process
    process.kill()
    process.wait()
    raise RuntimeError("mosquitto did not start")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(TIMEOUT_S)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a broker that everybody shares; each test has a base of its own."""
    port = free_port()
    process = start_mosquitto(tmp_path_factory.mktemp("broker"), port, "allow_anonymous true\n")
    yield port
    stop(process)


@dataclass
class Brokers:
    """Brokers of one test, with settings of their own; stopped at its end."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, extra: str, port: int | None = None) -> int:
        port = port or free_port()
        self.processes.append(start_mosquitto(self.folder, port, extra))
        return port

    def stop_last(self) -> None:
        stop(self.processes[-1])

    def password_file(self, *users: str) -> Path:
        """Write a password file where each user's password is `secret`."""
        path = self.folder / "passwords"
        path.write_text("".join(f"{user}:secret\n" for user in users))
        subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True, capture_output=True)
        return path


@pytest.fixture
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    started = Brokers(tmp_path_factory.mktemp("brokers"))
    yield started
    for process in started.processes:
        stop(process)


@dataclass
class Request:
    """A request as the responder saw it."""

    client: str
    id: str
    body: dict[str, Any]
    payload: bytes


class Responder:
    """Stands where the daemon stands: retained state, and answers that a test scripts.

    `answer` is called for each request, `on_cancel` for each cancel, in the MQTT thread.
    """

    def __init__(self, port: int, base: str, node: str = "board") -> None:
        self.port, self.base, self.node = port, base, node
        self.requests: list[Request] = []
        self.cancels: list[tuple[str, str]] = []
        self.admin: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[Request], None] = self.answer_ok
        self.on_cancel: Callable[[str, str], None] = self.confirm_cancel
        self.on_admin: Callable[[str, dict[str, Any]], None] | None = None
        self._n = itertools.count(1)
        self._ready = threading.Event()
        self._mqtt = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._mqtt.on_message = self._take
        self._mqtt.on_connect = lambda *_: self._mqtt.subscribe(f"{base}/{node}/#", qos=1)
        self._mqtt.on_subscribe = lambda *_: self._ready.set()
        self._mqtt.connect("127.0.0.1", port)
        self._mqtt.loop_start()
        assert self._ready.wait(TIMEOUT_S)
        self.retain("status", "online")

    def retain(self, part: str, payload: str | Mapping[str, Any]) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self._mqtt.publish(f"{self.base}/{self.node}/{part}", text, qos=1, retain=True).wait_for_publish(
            TIMEOUT_S
        )

    def publish(self, topic: str, members: Mapping[str, Any], qos: int = 1) -> None:
        self._mqtt.publish(f"{self.base}/{self.node}/{topic}", json.dumps(members), qos=qos)

    def event(self, request: Request, kind: str, **members: Any) -> None:
        body = {"type": kind, "n": next(self._n), "id": request.id, **members}
        self.publish(f"client/{request.client}/event/{request.id}", body)

    def accept(self, request: Request, **members: Any) -> None:
        base = {"node": self.node, "priority": "interactive", "position": 1, "queue_length": 1, "eta_s": 0}
        self.event(request, "accepted", **base | {"duplicate": False, "ignored": []} | members)

    def delta(self, request: Request, seq: int, text: str, *, attempt: int = 1, kind: str = "text") -> None:
        body = {"id": request.id, "attempt": attempt, "seq": seq, kind: text}
        self.publish(f"client/{request.client}/delta/{request.id}", body, qos=0)

    def final(self, request: Request, text: str, **members: Any) -> None:
        self.publish(f"client/{request.client}/reply/{request.id}", final(request.id, text, **members))

    def fail(self, request: Request, code: str, message: str, hint: str = "", text: str = "") -> None:
        error = {"code": code, "message": message, "hint": hint, "retryable": False, "retry_after_s": None}
        self.final(request, text, status="error", finish_reason="error", error=error)

    def answer_ok(self, request: Request) -> None:
        self.accept(request)
        self.event(request, "started", attempt=1, model="tiny", cached_tokens=0)
        self.final(request, "Hello from the board.")

    def confirm_cancel(self, client: str, request_id: str) -> None:
        known = next((request for request in self.requests if request.id == request_id), None)
        if known is None:
            request = Request(client, request_id, {}, b"")
            self.event(request, "cancel_unknown")
        else:
            error = {"code": "cancelled", "message": "The request was cancelled.", "hint": ""}
            self.final(known, "", status="error", finish_reason="cancelled", error=error)

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        levels = message.topic.split("/")[2:]
        if levels[0] == "client" and levels[2] == "request":
            request = Request(levels[1], levels[3], json.loads(message.payload), bytes(message.payload))
            self.requests.append(request)
            self.answer(request)
        elif levels[0] == "client" and levels[2] == "cancel":
            self.cancels.append((levels[1], levels[3]))
            self.on_cancel(levels[1], levels[3])
        elif levels[:2] == ["admin", "request"] and self.on_admin is not None:
            body = json.loads(message.payload)
            self.admin.append((levels[2], body))
            self.on_admin(levels[2], body)


def final(request_id: str, text: str, **members: Any) -> dict[str, Any]:
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": 1_790_000_000,
        "node": "board",
        "model": "tiny",
        "status": "ok",
        "text": text,
        "thinking": "",
        "tool_calls": [],
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "cached_tokens": 8},
        "timing": {"queue_ms": 1, "ttft_ms": 310.0, "total_ms": 900, "tokens_per_s": 15.25},
        "attempt": 1,
        "deltas": 0,
        "truncated": False,
    } | members


@pytest.fixture
def base() -> str:
    """A first topic level that no other test uses."""
    return f"test{os.getpid()}x{next(_numbers)}"


@pytest.fixture
def responder_type() -> type[Responder]:
    return Responder


@pytest.fixture
def daemon(broker: int, base: str) -> Iterator[Responder]:
    responder = Responder(broker, base)
    yield responder
    responder.close()


@dataclass
class Commands:
    """Starts commands as a person would, in a folder and an environment of their own."""

    folder: Path
    port: int
    base: str
    environ: dict[str, str] = field(default_factory=dict)
    terminals: list["Terminal"] = field(default_factory=list)

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "rkllm_mqtt", *words]

    def at_broker(self, *words: str) -> list[str]:
        return [*words, "--port", str(self.port), "--base", self.base]

    def run(self, *words: str, given: bytes = b"", broker: bool = True) -> subprocess.CompletedProcess[bytes]:
        line = self.at_broker(*words) if broker else words
        assert may_fork(self.environ)
        return ready_python().run(line, self.environ, self.folder, given, TIMEOUT_S)

    def in_terminal(self, *words: str, columns: int = 80, rows: int = 24, broker: bool = True) -> "Terminal":
        line = self.words(*(self.at_broker(*words) if broker else words))
        terminal = Terminal(line, self.folder, self.environ | {"TERM": "xterm-256color"}, columns, rows)
        self.terminals.append(terminal)
        return terminal


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(
        self, line: list[str], folder: Path, environ: dict[str, str], columns: int, rows: int
    ) -> None:
        self.output = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            line, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environ, start_new_session=True
        )
        os.close(slave)

    @property
    def text(self) -> str:
        """The output without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.output.decode("utf-8", "replace")).replace(
            "\r\n", "\n"
        )

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while text not in self.text:
            assert time.monotonic() < end, f"{text!r} did not appear in {self.text!r}"
            if not self._read(end - time.monotonic()):
                assert text in self.text, f"ended without {text!r}: {self.text!r}"

    def send(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Read to the end and return the exit status."""
        end = time.monotonic() + TIMEOUT_S
        while self._read(end - time.monotonic()):
            assert time.monotonic() < end, f"still running: {self.text!r}"
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        os.close(self._master)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, timeout_s))[0]:
            return True
        try:
            self.output += os.read(self._master, 65536)
        except OSError:  # the last process closed the terminal
            return False
        return True


@pytest.fixture
def commands(tmp_path: Path, broker: int, base: str) -> Iterator[Commands]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RKLLM_MQTT_")}
    environ |= {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "USER": "maker", "LOGNAME": "maker"}
    # The simulator's libraries are compiled once for all tests, not once for each home.
    environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    for key in ("NO_COLOR", "COLUMNS", "LINES", "VIRTUAL_ENV"):
        environ.pop(key, None)
    started = Commands(tmp_path, broker, base, environ)
    yield started
    for terminal in started.terminals:
        terminal.close()
