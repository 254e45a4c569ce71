"""What answers prompts over MQTT: the daemon, or the thin relay; the same topics, another payload."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.child import Child, children
from bench.library_log import LibraryLog
from bench.wire import Message, Wire

NODE = "bench"
READY_S = 30.0
"""Longest start of a service; one that takes longer is broken."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a service is spoken to."""

    base: str
    is_json: bool
    """Requests, deltas and finals are JSON of protocol 1.0; else bare bytes."""
    members: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What each JSON request carries beside its prompt."""

    def at(self, priority: str) -> "Dialect":
        """Return the same for requests of a class; a service that knows none is spoken to as ever."""
        return replace(self, members={**self.members, "priority": priority})

    def mailbox(self, client: str) -> str:
        """Return the prefix of a client's topics."""
        return f"{self.base}/{NODE}/client/{client}"

    def request(self, client: str, request_id: str, prompt: str) -> tuple[str, bytes]:
        """Return topic and payload of a request that streams."""
        payload = json.dumps({"prompt": prompt, "stream": True, **self.members}) if self.is_json else prompt
        return f"{self.mailbox(client)}/request/{request_id}", payload.encode()


OURS = Dialect("rkllm", is_json=True)
THIN = Dialect("thin", is_json=False)


class Service:
    """A service under measurement: a process, what it is spoken to in, and the log of its library."""

    def __init__(self, dialect: Dialect, child: Child, library_log: LibraryLog) -> None:
        self.dialect = dialect
        self.child = child
        self.library_log = library_log

    @property
    def worker_pid(self) -> int:
        """Return the process that holds the library.

        Raises:
            ProcessLookupError: There is none.
        """
        for pid in children(self.child.pid):
            with contextlib.suppress(OSError):
                if b"rkllm_mqtt.runtime.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        raise ProcessLookupError("the daemon has no worker")

    def stop(self) -> None:
        """End it."""
        self.child.stop()


@dataclass(frozen=True, slots=True)
class Stage:
    """A new broker with a model to serve: where services are started."""

    folder: Path
    notes: Path
    """Where logs go."""
    port: int
    library: Path
    model: Path
    environ: Mapping[str, str]
    started: list[Service] = field(default_factory=list)

    @property
    def probing(self) -> Mapping[str, Any]:
        """Return the setting `runtime` of a daemon that soon asks the runtime what it does with caches."""
        return {"library": str(self.library), "probe_idle_s": 0.2}

    def last_words(self) -> str:
        """Return what the services logged last, for the obituary."""
        return "\n".join(one.child.last_words() for one in self.started)

    def stop(self) -> None:
        """End every service that was started here."""
        for service in self.started:
            service.stop()

    async def daemon(self, name: str, settings: Mapping[str, Any] | None = None) -> Service:
        """Start the daemon with an empty journal and wait until its model is loaded.

        Args:
            name: Of its files in the folder.
            settings: Top-level keys of its configuration, over those of the bench.

        Raises:
            ConnectionError: It did not become ready; the message has its last words.
        """
        service = self.start_daemon(name, settings)
        await _ready(self.port, service.child, f"rkllm/{NODE}/info", _model_loaded)
        return service

    def start_daemon(self, name: str, settings: Mapping[str, Any] | None = None) -> Service:
        """Start the daemon and return at once."""
        config = {
            "node": NODE,
            "mqtt": {"port": self.port},
            # What is asked of the runtime in the first idle time is no run that a row counts.
            "runtime": {"library": str(self.library), "probe_idle_s": None},
            "models": [
                {"id": "bench", "file": str(self.model), "context_tokens": 16_384, "max_tokens": 16_384}
            ],
            "limits": {
                "max_tokens": 16_384,
                "queue_length": 20_000,
                "client_waiting": 20_000,
                "requests_burst": 20_000,
            },
            "journal": {"path": str(self.folder / f"{name}.db")},
            "log": {"level": "warning"},
            "admin": {"enabled": True},
            **(settings or {}),
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        library_log = LibraryLog(self.notes / f"{name}.runs")
        line = [sys.executable, "-P", "-m", "rkllm_mqtt", "run", "--config", str(file)]
        environ = {**self.environ, **library_log.environ}
        return self._keep(Service(OURS, Child(line, self.notes / f"{name}.log", environ), library_log))

    async def thin(self, name: str = "thin") -> Service:
        """Start the thin relay and wait until it has subscribed.

        Raises:
            ConnectionError: It did not become ready.
        """
        library_log = LibraryLog(self.notes / f"{name}.runs")
        line = [sys.executable, "-m", "bench.thin_relay", str(self.port), str(self.library), str(self.model)]
        # It lives in the bench, not among the installed packages.
        environ = {
            **self.environ,
            **library_log.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        }
        service = self._keep(Service(THIN, Child(line, self.notes / f"{name}.log", environ), library_log))
        await _ready(self.port, service.child, f"thin/{NODE}/status", lambda payload: payload == b"online")
        return service

    def _keep(self, service: Service) -> Service:
        self.started.append(service)
        return service


def _model_loaded(info: bytes) -> bool:
    return bool(info) and any(model["loaded"] for model in json.loads(info)["models"])


async def _ready(port: int, child: Child, topic: str, is_ready: Any) -> None:
    """Wait for a message that says so; the broker is new, so nothing is retained from an earlier service."""
    seen = asyncio.Event()

    def look(message: Message) -> None:
        if is_ready(message.payload):
            seen.set()

    wire = await Wire.open(port, f"ready-{child.pid}", look)
    try:
        await wire.subscribe([topic])
        ends_at = asyncio.get_running_loop().time() + READY_S
        while not seen.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seen.wait(), 0.1)
            if child.has_ended or asyncio.get_running_loop().time() > ends_at:
                raise ConnectionError(f"a service did not start: {child.last_words()}")
    finally:
        await wire.close()
