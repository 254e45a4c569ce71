"""`rkllm-mqtt demo`: a broker, the daemon, and what to type next; Ctrl-C ends and removes everything."""

import json
import os
import select
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rkllm_mqtt.commands import client_address, demo_screen
from rkllm_mqtt.commands.client_address import BrokerAddress, Protocol
from rkllm_mqtt.commands.client_connection import Connection, ConnectionLost, members_of
from rkllm_mqtt.commands.demo_broker import EMBEDDED, HOST, choose_port, start_broker
from rkllm_mqtt.commands.demo_child import Child
from rkllm_mqtt.commands.demo_note import DemoNote, read_note, remove_note, started_of, write_note
from rkllm_mqtt.commands.demo_screen import Running
from rkllm_mqtt.commands.failure import BrokerUnreachable, CommandFailed
from rkllm_mqtt.commands.interruption import Interruption
from rkllm_mqtt.commands.terminal import Terminal

NODE = "demo"
BASE = "rkllm"
BROKER_START_S = 10.0
DAEMON_START_S = 60.0
"""The first start compiles the simulator."""
MODEL_LOAD_S = 30.0
"""How long the screen waits for a model: a big one takes longer, a broken one for ever."""
DAEMON_STOP_S = 10.0
BROKER_STOP_S = 5.0
_POLL_S = 0.1


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `demo`."""
    parser.add_argument(
        "--port",
        type=client_address.parse_port,
        metavar="N",
        help="port of the broker (default: 1883, or the first free one from 18830)",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep configuration and journal in DIR; another demo goes on there",
    )
    parser.add_argument(
        "--broker",
        choices=("auto", "mosquitto", "embedded"),
        default="auto",
        help="which broker (default: mosquitto if installed)",
    )


def run(args: Namespace) -> int:
    """Run until Ctrl-C, and return the exit status.

    Raises:
        CommandFailed: There is no broker to start, or one of the children died.
    """
    with Interruption() as interruption, _folder(args.keep) as folder, ExitStack() as stack:
        demo = _Demo(folder, args.keep is not None, interruption, stack)
        try:
            if demo.start(args.broker, choose_port(args.port)):
                demo.watch()
        finally:
            demo.farewell()
    return 0


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        try:
            kept.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise CommandFailed(f"--keep {kept}: {exc.strerror}.") from exc
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="rkllm-mqtt-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


class _Demo:
    """The processes, in the order in which they start; `stack` stops them in the reverse order."""

    def __init__(self, folder: Path, kept: bool, interruption: Interruption, stack: ExitStack) -> None:
        self._folder = folder
        self._kept = kept
        self._interruption = interruption
        self._stack = stack
        self._terminal = Terminal(sys.stdout)
        self._children: list[Child] = []
        self._connection: Connection | None = None
        self._status = ""
        self._info: dict[str, Any] = {}
        self._health: dict[str, Any] = {}
        self._shown = False

    def start(self, kind: str, port: int) -> bool:
        """Start everything and show the screen; False when Ctrl-C came first."""
        self._terminal.live("starting the broker …")
        broker = self._add(start_broker(kind, port, self._folder), BROKER_STOP_S)
        protocol: Protocol = "3.1.1" if broker.name == EMBEDDED else "auto"
        address = BrokerAddress(host=HOST, port=port, base=BASE, protocol=protocol)
        connection = self._stack.enter_context(Connection(address))
        if not self._wait(lambda: _opens(connection), BROKER_START_S, "The broker"):
            return False
        self._connection = connection
        own = f"{BASE}/{NODE}"
        state = [f"{own}/{part}" for part in ("status", "info", "health")]
        connection.subscribe([*state, *(f"{own}/client/+/{verb}/#" for verb in demo_screen.TRAFFIC)])
        self._terminal.live("starting the daemon …")
        self._add(self._start_daemon(port, connection.protocol), DAEMON_STOP_S)
        if not self._wait(self._is_ready, DAEMON_START_S, "The daemon"):
            return False
        self._terminal.live("loading the model …")
        end = time.monotonic() + MODEL_LOAD_S
        if not self._wait(lambda: self._is_decided or time.monotonic() > end, 2 * MODEL_LOAD_S, "The daemon"):
            return False
        noted = self._note(port, connection.protocol)
        self._terminal.clear_live()
        running = Running(
            *(
                broker.name,
                HOST,
                port,
                BASE,
                NODE,
                self._folder,
                self._kept,
                noted,
                self._info,
                self._is_loaded,
            )
        )
        demo_screen.show(self._terminal, running)
        self._shown = True
        for line in () if self._is_loaded else self._children[-1].last:
            demo_screen.log_line(self._terminal, line)
        return True

    def watch(self) -> None:
        """Show what the daemon logs until Ctrl-C.

        Raises:
            CommandFailed: The broker or the daemon died.
        """
        while not self._interruption.count:
            self._turn()

    def farewell(self) -> None:
        """Say that everything is being stopped; the stack does it."""
        if self._interruption.count:
            self._terminal.live("stopping …")
        self._stack.close()
        self._terminal.clear_live()
        if self._interruption.count:
            gone = f"; {self._folder} is kept" if self._kept else " and removed"
            self._terminal.write(f"stopped{gone}\n", "dim")

    def _is_ready(self) -> bool:
        return self._status == "online" and bool(self._info)

    @property
    def _is_loaded(self) -> bool:
        models = self._info.get("models")
        known = [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
        return any(model.get("loaded") is True for model in known)

    @property
    def _is_decided(self) -> bool:
        """The model is loaded, or the daemon has found out that it cannot be."""
        return self._is_loaded or self._health.get("status") == "unhealthy"

    def _start_daemon(self, port: int, protocol: str) -> Child:
        config = self._folder / "demo.yaml"
        settings = {
            "node": NODE,
            "base": BASE,
            # Named, because finding out that a broker does not speak MQTT 5 takes seconds.
            "mqtt": {"host": HOST, "port": port, "protocol": protocol},
            "journal": {"path": str(self._folder / "journal.db")},
            "admin": {"enabled": True},
            "drain_timeout_s": 2,
        }
        config.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")  # JSON is YAML
        # What is set for another daemon in this terminal is not meant for the demo's.
        environ = {key: value for key, value in os.environ.items() if not key.startswith("RKLLM_MQTT_")}
        environ.pop("JOURNAL_STREAM", None)
        line = [sys.executable, "-P", "-m", "rkllm_mqtt", "run", "--config", str(config)]
        return Child("daemon", line, environ)

    def _add(self, child: Child, grace_s: float) -> Child:
        self._children.append(child)
        self._stack.callback(child.stop, grace_s)
        return child

    def _note(self, port: int, protocol: str) -> bool:
        """Leave word where the broker is; False where the commands must be told."""
        told = any(os.environ.get(key) for key in ("RKLLM_MQTT_URL", "RKLLM_MQTT_CONFIG"))
        if told or read_note() is not None:
            return False
        pid = os.getpid()
        try:
            write_note(DemoNote(HOST, port, BASE, NODE, pid, started_of(pid), protocol))
        except OSError:
            return False
        self._stack.callback(remove_note, pid)
        return True

    def _wait(self, done: Callable[[], bool], timeout_s: float, who: str) -> bool:
        end = time.monotonic() + timeout_s
        while not done():
            if self._interruption.count:
                return False
            if time.monotonic() > end:
                lines = "\n".join(self._children[-1].last)
                raise CommandFailed(f"{who} is not ready after {timeout_s:.0f} s.", lines)
            self._turn()
        return True

    def _turn(self) -> None:
        """Wait a moment for output, messages or signals, and take them in."""
        talking = [child for child in self._children if not child.is_silent]
        waitables = [self._interruption, *talking]
        if self._connection is not None and self._connection.is_open:
            self._take(waitables)
        else:
            select.select(waitables, [], [], _POLL_S)
        for child in self._children:
            for line in child.lines():
                if self._shown:
                    demo_screen.log_line(self._terminal, line)
            if child.exit_status is not None and not self._interruption.count:
                child.lines()
                raise CommandFailed(
                    f"The {child.name} ended by itself, exit status {child.exit_status}.",
                    "\n".join(child.last),
                )

    def _take(self, waitables: list[Any]) -> None:
        if self._connection is None:
            return
        try:
            messages = self._connection.pump(_POLL_S * 5, *waitables)
        except ConnectionLost:
            return  # the broker's death is seen at its process
        for message in messages:
            if message.topic.endswith("/status"):
                self._status = message.payload.decode("utf-8", "replace")
            elif message.topic.endswith("/info"):
                self._info = members_of(message.payload)
            elif message.topic.endswith("/health"):
                self._health = members_of(message.payload)
            elif self._shown:
                demo_screen.traffic_line(self._terminal, message)


def _opens(connection: Connection) -> bool:
    try:
        connection.open()
    except BrokerUnreachable:
        return False
    return True
