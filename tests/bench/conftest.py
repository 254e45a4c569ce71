"""Make the bench importable, and give its tests a real broker."""

import asyncio
import importlib.util
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Only this package: with the checkout on the path, `config` and `homeassistant` would be importable too.
if "bench" not in sys.modules:
    folder = ROOT / "bench"
    spec = importlib.util.spec_from_file_location(
        "bench", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = package
    spec.loader.exec_module(package)

LIMIT_S = 30.0


@pytest.fixture
def root():
    return ROOT


@pytest.fixture
def on_broker(tmp_path):
    """Run a coroutine function with the port of a new broker."""
    from bench.broker import Broker

    @asynccontextmanager
    async def running():
        broker = Broker(tmp_path)
        await broker.start()
        try:
            yield broker.port
        finally:
            broker.stop()

    def run(work):
        async def limited():
            async with asyncio.timeout(LIMIT_S), running() as port:
                return await work(port)

        return asyncio.run(limited())

    return run
