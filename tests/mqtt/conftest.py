"""A real mosquitto on a free loopback port, a session that records what it is told, and a scripted broker."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.mqtt.messages import Outbound, Subscription
from rkllm_mqtt.mqtt.session import Session

LIMIT_S = 30.0
"""A test that waits longer for an event has failed; a slow machine has time enough."""

_names = itertools.count()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until(condition, what: str) -> None:
    """Poll something outside of this process until it holds."""
    ends_at = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends_at, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.005)


class Mosquitto:
    """A mosquitto process; `settings` are lines of its configuration after the listener's."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true", *, listener: str = "") -> None:
        self.port = free_port()
        self.folder = folder
        self.log = folder / f"mosquitto-{self.port}.log"
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._socket = listener.split()[1] if listener.startswith("0 ") else None
        first = listener or f"{self.port} 127.0.0.1"
        self._config.write_text(
            f"listener {first}\n{settings}\nuser root\nlog_type all\nset_tcp_nodelay true\n"
            "max_inflight_messages 40\nmax_queued_messages 0\n"
        )
        self._process: subprocess.Popen | None = None

    def start(self) -> "Mosquitto":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/mosquitto", "-c", str(self._config)], stdout=log, stderr=log
            )
        wait_until(self._listens, "mosquitto to listen")
        return self

    def stop(self) -> None:
        """Stop as the service manager does: what is configured to persist is written."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def logged(self, text: str) -> int:
        return self.log.read_text(errors="replace").count(text)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        if self._socket:
            return Path(self._socket).exists()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


class Peer:
    """A session that keeps what it is told; use it as an async context manager."""

    def __init__(
        self, port: int = 1883, *filters: str, token: str = "", ack: bool = True, **settings
    ) -> None:
        self.name = settings.pop("client_id", None) or f"peer-{os.getpid()}-{next(_names)}"
        self.messages: asyncio.Queue = asyncio.Queue()
        self.connections: asyncio.Queue = asyncio.Queue()
        self.losses: asyncio.Queue = asyncio.Queue()
        self.tokens: list[str] = []
        self.denied: set[str] = set()
        self._ack = ack
        will = settings.pop("will", Outbound(f"{self.name}/status", b"offline", 1, retain=True))
        defaults = {"port": port or None, "reconnect_max_s": 0.1, "keepalive_s": 30, "will_delay_s": 0}
        self.session = Session(
            MqttConfig(**(defaults | settings)),
            client_id=self.name,
            will=will,
            subscriptions=[Subscription(name) for name in filters],
            may_publish=lambda topic: topic not in self.denied,
            session_token=token,
            on_message=self._take,
            on_connected=self.connections.put_nowait,
            on_lost=self.losses.put_nowait,
            on_session_lost=self.tokens.append,
        )
        self.task: asyncio.Task | None = None

    def _take(self, inbound) -> None:
        if self._ack:
            self.session.ack(inbound)
        self.messages.put_nowait(inbound)

    async def take(self, count: int) -> list:
        return [await self.messages.get() for _ in range(count)]

    def start(self) -> "Peer":
        self.task = asyncio.create_task(self.session.run())
        return self

    async def vanish(self) -> None:
        """Leave as a process that dies does."""
        self.task.cancel()
        await asyncio.wait({self.task})

    async def __aenter__(self) -> "Peer":
        self.start()
        self.connection = await self.connections.get()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.task.done():
            await self.session.close([])
            await self.task


class ScriptedBroker:
    """A listener that speaks MQTT by hand: `script(broker, reader, writer)` is run for each connection."""

    CONNACK_V5 = b"\x20\x03\x00\x00\x00"
    CONNACK_V311 = b"\x20\x02\x00\x00"

    def __init__(self, script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task] = set()
        self.levels: list[int] = []
        """Protocol level of each CONNECT: 4 is 3.1.1, 5 is 5."""
        self.farewells: list[bytes] = []
        """Body of each DISCONNECT; the script ends with it."""

    async def __aenter__(self) -> "ScriptedBroker":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            await self._script(self, reader, writer)
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def packet(self, reader) -> tuple[int, bytes]:
        """Return the first byte and the rest of the next packet."""
        first = (await reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        body = await reader.readexactly(length)
        if first >> 4 == 1:
            self.levels.append(body[6])
        if first >> 4 == 14:
            self.farewells.append(body)
            raise ConnectionAbortedError
        return first, body

    async def grant(self, reader, writer) -> None:
        """Answer the next SUBSCRIBE (MQTT 5) with QoS 1 for one filter."""
        _, body = await self.packet(reader)
        writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    running = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield running
    running.stop()


@pytest.fixture
def mosquitto(tmp_path):
    """Return a factory of brokers of the test's own."""
    started = []

    def make(settings: str = "allow_anonymous true", *, listener: str = "") -> Mosquitto:
        started.append(Mosquitto(tmp_path, settings, listener=listener))
        return started[-1]

    yield make
    for running in started:
        running.kill()


@pytest.fixture(scope="module")
def amqtt(tmp_path_factory):
    """Return a function that starts an amqtt (3.1.1 only) and returns the ports of its listeners."""
    started = []

    def make(*listeners: dict) -> list[int]:
        folder = tmp_path_factory.mktemp("amqtt")
        ports = [free_port() for _ in listeners]
        bound = {
            f"listener-{port}": {"bind": f"127.0.0.1:{port}"} | listener
            for port, listener in zip(ports, listeners, strict=True)
        }
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        config = {"listeners": {"default": bound.pop(f"listener-{ports[0]}")} | bound, "plugins": plugins}
        (folder / "amqtt.yaml").write_text(yaml.safe_dump(config))
        command = [Path(sys.executable).parent / "amqtt", "-c", folder / "amqtt.yaml"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        started.append(process)

        def listens(port: int) -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        for port in ports:
            wait_until(lambda port=port: listens(port), "amqtt to listen")
        return ports

    yield make
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def peer():
    return Peer


@pytest.fixture
def scripted():
    return ScriptedBroker


@pytest.fixture
def topic():
    return f"t/{os.getpid()}/{next(_names)}"


@pytest.fixture
def run():
    """Run a coroutine to its end, within the limit."""

    def to_its_end(work):
        async def limited():
            async with asyncio.timeout(LIMIT_S):
                return await work

        return asyncio.run(limited())

    return to_its_end


@pytest.fixture
def until():
    return wait_until
