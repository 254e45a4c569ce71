"""The foreign clients as `scripts/setup-clients` installs them; a client that is missing fails its tests."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_broker import Broker
from live_client import PATIENCE_S, Client
from live_daemon import Daemon

HERE = Path(__file__).parent
CLIENTS = HERE.parents[1] / ".clients"


def installed(name: str) -> str:
    """Return the path of a client's program: this system's own, else the one of `make test-clients`."""
    found = shutil.which(name) or shutil.which(name, path=str(CLIENTS / "bin"))
    if found is None:
        pytest.fail(f"{name} is not installed: run `make test-clients`, and read what its setup says")
    return found


def module(name: str) -> Path:
    """Return where npm or pip put a client's library."""
    path = CLIENTS / name
    if not path.exists():
        pytest.fail(f"{name} is not in .clients: run `make test-clients`, and read what its setup says")
    return path


def run(*command: str | Path, typed: str = "", **environment: str) -> str:
    """Run a client to its end, assert that it succeeded, and return what it printed."""
    variables = {**os.environ, **environment}
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, timeout=PATIENCE_S, env=variables
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def micropython(shared_broker: Broker) -> Callable[..., list[str]]:
    """Run `device.py` on MicroPython with umqtt.simple; it reads the texts and prints lines."""
    program, library = installed("micropython"), module("micropython-lib/umqtt").parent

    def device(client_id: str, mailbox: str, action: str, *texts: str) -> list[str]:
        command = [program, HERE / "device.py", str(shared_broker.port), client_id, mailbox, action]
        typed = "".join(f"{text}\n" for text in texts)
        return run(*command, typed=typed, MICROPYPATH=f"{library}:.frozen").splitlines()

    return device


@pytest.fixture
def mqttjs(shared_broker: Broker) -> Callable[..., str]:
    """Run `ask.js` on Node.js with MQTT.js; return what it prints."""
    program, library = installed("node"), module("node_modules/mqtt").parent

    def ask(*arguments: str) -> str:
        return run(program, HERE / "ask.js", str(shared_broker.port), *arguments, NODE_PATH=str(library))

    return ask


@pytest.fixture
def paho_c(shared_broker: Broker) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Paho's C clients against the shared broker; they have no timeout, so `timeout` ends them."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        command = [
            "timeout",
            str(PATIENCE_S),
            installed(name),
            "-h",
            "127.0.0.1",
            "-p",
            str(shared_broker.port),
        ]
        started.append(subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def node_red(
    shared_broker: Broker, shared_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, str]]:
    """Run the flow of `flows.json` in a headless Node-RED.

    Yields:
        A client that hears what the flow reports on `<lab>/seen`, and `<lab>`.
    """
    program, library = installed("node"), module("node_modules/node-red")
    lab, folder = f"lab-{os.getpid()}", tmp_path_factory.mktemp("node-red")
    shutil.copy(HERE / "flows.json", folder)
    environment = {
        "BROKER_PORT": str(shared_broker.port),
        "ASK_TOPIC": f"{lab}/ask",
        "SEEN_TOPIC": f"{lab}/seen",
        "MAILBOX": shared_daemon.client("node-red"),
        "ANSWERS_FILTER": shared_daemon.client("node-red/answers/#"),
        "REPLY_TOPIC": shared_daemon.client("node-red/reply"),
    }
    command = [program, library / "red.js", "-u", folder, "-s", HERE / "settings.js", folder / "flows.json"]
    with (folder / "node-red.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
    watcher = Client(shared_broker.port).subscribe(f"{lab}/seen")
    yield watcher, lab
    watcher.close()
    process.terminate()
    process.wait(PATIENCE_S)
    print((folder / "node-red.log").read_text())  # shown when a test has failed
