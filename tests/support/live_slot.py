"""A real slot: its worker is a real process that runs the simulated library."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.runtime.order import RunOrder
from rkllm_mqtt.runtime.run import Run, RunEnd
from rkllm_mqtt.runtime.slot import Slot
from rkllmrt import simulator

PATIENCE_S = 30.0
"""Longest wait of a test for something that must come."""
MODELS = Path(__file__).parent.parent / "models"
"""The simulated models of the tests."""


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test in a loop of its own; it fails when it takes longer than PATIENCE_S."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    assert inspect.iscoroutinefunction(test)
    return run


def slot_config(*files: Path, **settings: Any) -> Config:
    """Return a configuration on the simulator; the models are called by the stems of their files.

    Args:
        files: Model files; none is the demonstration model.
        settings: Sections and keys; those of `runtime` and of a model may be given directly.
    """
    keys = ("context_tokens", "template", "thinking", "n_batch")
    model = {key: settings.pop(key) for key in keys if key in settings}
    sections = ("models", "limits", "journal", "mqtt", "policy")
    top = {key: settings.pop(key) for key in sections if key in settings}
    models = [{"id": file.stem, "file": file, **model} for file in files]
    library = _simulator(settings.pop("simulator_version", "1.3.1"))
    return Config.model_validate(
        {"node": "rock", "models": models, "runtime": {"library": library, **settings}, **top}
    )


@functools.cache
def _simulator(version: str) -> Path:
    return simulator.build(version)


class Asked:
    """A run, and what has come of it."""

    def __init__(self) -> None:
        self.run: Run
        self.pieces: list[Any] = []
        self._came = asyncio.Event()

    def take(self, pieces: Sequence[Any], tokens: int) -> None:
        """Take the pieces of a frame."""
        self.pieces.extend(pieces)
        self._came.set()

    @property
    def text(self) -> str:
        """Return the answer so far."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def thinking(self) -> str:
        """Return the thoughts so far."""
        return "".join(piece[0] for piece in self.pieces if not isinstance(piece, str))

    async def first_token(self) -> None:
        """Wait until the run has made a token."""
        await self._came.wait()

    async def end(self) -> RunEnd:
        """Wait for the end."""
        return await self.run.ended


class LiveSlot:
    """A running slot."""

    def __init__(self, config: Config) -> None:
        self._changed = asyncio.Event()
        self.slot = Slot(config, configured_catalogue(config), self._changed.set)

    async def until(self, holds: Callable[[Slot], object]) -> Slot:
        """Wait until something holds; it is looked at whenever the slot says that it has changed."""
        while not holds(self.slot):
            self._changed.clear()
            await self._changed.wait()
        return self.slot

    async def ready(self) -> Slot:
        """Wait until a model is loaded."""
        return await self.until(lambda slot: slot.loaded)

    def ask(self, prompt: str, **order: Any) -> Asked:
        """Submit a run of the loaded model."""
        asked = Asked()
        asked.run = self.slot.submit(RunOrder(**{"prompt": prompt, "max_tokens": 100} | order), asked.take)
        return asked

    async def answer(self, prompt: str, **order: Any) -> str:
        """Run to the end and return the text."""
        asked = self.ask(prompt, **order)
        await asked.end()
        return asked.text


@asynccontextmanager
async def running(config: Config, *, wait: bool = True) -> AsyncIterator[LiveSlot]:
    """Run a slot; it is closed in order at the end."""
    live = LiveSlot(config)
    task = asyncio.create_task(live.slot.run())
    try:
        if wait:
            await live.ready()
        yield live
        await live.slot.close()
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
