"""Real parts for every test: a mosquitto, daemons on the simulator, recording clients."""

import gc
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from live_broker import Broker
from live_client import Client
from live_daemon import Daemon

# Hundreds of processes start here, and each would compile all it imports where bytecode is not kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A slow or busy machine is no bug of the property that is tested.
# `HYPOTHESIS_PROFILE=thorough` looks further than a suite of minutes can.
_PATIENCE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("patient", max_examples=25, **_PATIENCE)
settings.register_profile("thorough", max_examples=500, **_PATIENCE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))


# Thousands of tests and their modules live to the end: a collection need not walk through them.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from now on, of what the tests make."""
    gc.enable()
    gc.freeze()


_LONGEST = (
    ("commands/test_demo",),
    ("chaos/test_short",),
    ("soak/test_soak",),
    ("end_to_end/test_promises", "end_to_end/test_wedged"),
    ("store/test_upkeep", "tests/test_supervision", "tests/test_reload"),
    ("tests/failures/",),
)
"""Files whose tests mostly wait, in groups that take about as long as each other."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest, on every worker: at the end everybody would wait for them.

    `--dist worksteal` first gives each worker an equal part of what was collected, in its order.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    heads: list[list[pytest.Item]] = [[] for _ in range(workers)]
    others = []
    for item in items:
        path = str(item.path)
        group = next((n for n, names in enumerate(_LONGEST) if any(name in path for name in names)), None)
        (others if group is None else heads[group % workers]).append(item)
    ordered: list[pytest.Item] = []
    for number, head in enumerate(heads, 1):
        ordered += head
        end = len(items) * number // workers - len(ordered)
        ordered += others[: max(0, end)]
        del others[: max(0, end)]
    items[:] = ordered + others


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all tests that do not harm it."""
    broker = Broker(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Make brokers that a test may stop and kill."""
    made: list[Broker] = []

    def make(**options: Any) -> Broker:
        broker = Broker(tmp_path / f"mosquitto-{len(made)}", **options)
        broker.start()
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def connect(shared_broker: Broker) -> Iterator[Callable[..., Client]]:
    """Make recording clients."""
    made: list[Client] = []

    def make(*filters: str, port: int | None = None, **options: Any) -> Client:
        client = Client(port or shared_broker.port, **options)
        made.append(client)
        return client.subscribe(*filters)

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="session")
def online(
    shared_broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[Daemon]]:
    """A context with a daemon that many tests share; it ends in order, and has raised nothing."""

    @contextmanager
    def run(
        name: str, environment: dict[str, str] | None = None, *, afresh: bool = False, **config: Any
    ) -> Iterator[Daemon]:
        settings = {**os.environ, "RKLLM_SIM_PROFILE": "instant", **(environment or {})}
        folder = tmp_path_factory.mktemp(name)
        daemon = Daemon(folder, shared_broker.port, f"{name}-{os.getpid()}", config, settings)
        daemon.afresh = afresh
        watcher = Client(shared_broker.port).subscribe(f"rkllm/{daemon.node}/info")
        daemon.start(watcher)
        watcher.close()
        yield daemon
        assert daemon.stop() == 0, daemon.log
        assert "Traceback" not in daemon.log, daemon.log

    return run


@pytest.fixture(scope="session")
def shared_daemon(online: Callable[..., AbstractContextManager[Daemon]]) -> Iterator[Daemon]:
    """One daemon with the default configuration, as fast as possible, for all tests that do not harm it."""
    with online("shared") as daemon:
        yield daemon


@pytest.fixture(scope="session")
def slow_daemon(online: Callable[..., AbstractContextManager[Daemon]]) -> Iterator[Daemon]:
    """The same at 64 ms a token: slow enough to act in the middle of an answer. Tests leave it idle."""
    with online("slow", {"RKLLM_SIM_PROFILE": "origin"}) as daemon:
        yield daemon


@pytest.fixture
def served(shared_daemon: Daemon, connect: Callable[..., Client]) -> tuple[Client, str]:
    """A client and a mailbox of its own on the shared daemon."""
    box = shared_daemon.client(f"c-{uuid.uuid4().hex[:12]}")
    return connect(f"{box}/#", f"rkllm/{shared_daemon.node}/+"), box


@pytest.fixture
def served_slowly(slow_daemon: Daemon, connect: Callable[..., Client]) -> Iterator[tuple[Client, str]]:
    """A client and a mailbox of its own on the shared slow daemon; what is left of its requests is ended."""
    box, queue = slow_daemon.client(f"c-{uuid.uuid4().hex[:12]}"), f"rkllm/{slow_daemon.node}/queue"
    client = connect(f"{box}/#", queue)
    yield client, box
    client.publish(f"{box}/cancel", {"all": True})
    while client.on(queue)[-1].json["state"] != "idle":
        client.wait_next(1)


@pytest.fixture
def unloaded(
    shared_broker: Broker, connect: Callable[..., Client], tmp_path: Path
) -> Iterator[Callable[..., tuple[Daemon, Client]]]:
    """Start daemons without waiting for their model; each comes with a client that hears all of its node."""
    made: list[Daemon] = []

    def make(
        *,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        afresh: bool = False,
        **config: Any,
    ) -> Any:
        folder = tmp_path / f"daemon-{len(made)}"
        folder.mkdir()
        node = f"n{os.getpid()}-{abs(hash(tmp_path)) % 10**8}-{len(made)}"
        settings = {"RKLLM_SIM_PROFILE": "instant", **os.environ, **(environment or {})}
        daemon = Daemon(folder, port or shared_broker.port, node, config, settings)
        daemon.afresh = afresh
        made.append(daemon)
        watcher = connect(f"rkllm/{node}/#", port=daemon.port)
        daemon.spawn()
        return daemon, watcher

    yield make
    for daemon in made:
        daemon.stop()
        # Whatever a test does to the daemon, it must not raise where nobody planned for it.
        assert "Traceback" not in daemon.log, daemon.log


@pytest.fixture
def launch(unloaded: Callable[..., tuple[Daemon, Client]]) -> Callable[..., tuple[Daemon, Client]]:
    """Start daemons and wait for their model; each comes with a client that hears everything of its node."""

    def make(**options: Any) -> tuple[Daemon, Client]:
        daemon, watcher = unloaded(**options)
        daemon.until_loaded(watcher)
        return daemon, watcher

    return make


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """Every event that is logged while the test runs: name and facts."""
    seen = []

    class Keep(logging.Handler):
        def emit(self, record):
            seen.append((record.getMessage(), record.facts))

    logger, handler = logging.getLogger("rkllm_mqtt"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield seen
    logger.removeHandler(handler)
    logger.setLevel(level)
