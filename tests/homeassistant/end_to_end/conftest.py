"""One house for all tests, in the order of the files: from an empty folder to the removal of the entry."""

import os
from pathlib import Path

import pytest
from house import ROOT, House
from live_broker import Broker
from live_client import Client
from live_daemon import Daemon

NODE = "board"
MODEL = Path(__file__).parent / "house.sim"


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """A mosquitto."""
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def watcher(broker):
    """Hears everything of the node."""
    client = Client(broker.port).subscribe(f"rkllm/{NODE}/#")
    yield client
    client.close()


@pytest.fixture(scope="session")
def daemon(broker, watcher, tmp_path_factory):
    """The real daemon, on the simulator."""
    models = [
        {"id": "house", "file": str(MODEL), "context_tokens": 8192},
        {"id": "small", "file": str(MODEL), "context_tokens": 4096},
        {"id": "calls", "file": str(MODEL.with_name("calls.sim")), "context_tokens": 8192},
    ]
    folder = tmp_path_factory.mktemp("daemon")
    settings = {"models": models, "sysfs_root": str(ROOT / "tests" / "host" / "trees" / "rk3588-bsp61")}
    daemon = Daemon(folder, broker.port, NODE, settings, dict(os.environ))
    daemon.python = str(ROOT / ".venv" / "bin" / "python")
    daemon.start(watcher)
    yield daemon
    daemon.stop()
    assert "Traceback" not in daemon.log, daemon.log


@pytest.fixture(scope="session")
async def house(broker, daemon, tmp_path_factory):
    """Home Assistant, signed in and connected to the broker."""
    keep = os.environ.get("HOUSE_FOLDER")
    folder = Path(keep) if keep else tmp_path_factory.mktemp("house")
    house = House(folder, broker.port)
    house.prepare()
    try:
        await house.start()
        await house.onboard()
        await house.add_mqtt()
        yield house
    finally:
        await house.stop()


@pytest.fixture(scope="session")
async def agent(house):
    """Our integration, added as it was discovered; the id of its agent, preferred by Assist."""
    flow = await house.discovered()
    result = await house.flow(
        f"/api/config/config_entries/flow/{flow['flow_id']}", {"client": "homeassistant"}
    )
    assert result["type"] == "create_entry", result
    agent = await house.entity("rkllm_mqtt", "conversation")
    await house.add_pipeline(agent)
    exposed = (await house.socket.call("homeassistant/expose_entity/list"))["exposed_entities"]
    lamps = {"light.kitchen_lamp", "light.bedroom_lamp"}
    await house.expose([each for each in exposed if each not in lamps], exposed=False)
    await house.expose(sorted(lamps), exposed=True)
    return agent
