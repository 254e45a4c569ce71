"""Ask the runtime what it does with caches, or read what the running daemon has learned of that."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct, field

from rkllm_mqtt.commands.doctoring.journal import Use, use_of
from rkllm_mqtt.config import Config
from rkllm_mqtt.config.folder import read_catalogue
from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.knowledge import Knowledge, kept_facts
from rkllm_mqtt.probing import FOLDER, Probing
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.store.reading import reader


class Learned(Struct, frozen=True):
    """What is known of one model."""

    facts: CacheFacts = field(default_factory=CacheFacts)
    failed: tuple[str, ...] = ()
    """Steps in which the library failed."""
    problem: str = ""
    """Why nothing was asked; empty where it was."""
    hint: str = ""


class CachesProbe(Struct, frozen=True):
    """What was found out, and how."""

    models: Mapping[str, Learned]
    asked: bool = True
    """The runtime was asked now; False: a running daemon has it, and what it knows was read."""
    kept: bool = True
    """The daemon will know it too."""
    problem: str = ""
    """Why nothing could be found out; empty where it could."""


def probe_caches(config: Config, say: Callable[[str], None]) -> CachesProbe:
    """Load each model and ask; beside a running daemon nothing is loaded.

    Args:
        config: Of the daemon.
        say: Told what takes a moment.
    """
    path = config.journal.path
    use = use_of(path)
    try:
        if use is Use.HELD:
            with reader(path) as connection:
                rows = connection.execute("SELECT key, value FROM meta WHERE key LIKE 'facts:%'").fetchall()
            models = {key.partition(":")[2]: Learned(*kept_facts(value)) for key, value in rows}
            return CachesProbe(models, asked=False)
        # What the daemon could not open afterwards must not be left to it.
        ours = use is Use.FREE and path.is_file() and path.stat().st_uid == os.geteuid()
        if ours:
            return CachesProbe(asyncio.run(_ask(config, path, say)))
        with tempfile.TemporaryDirectory(prefix="rkllm-mqtt-") as folder:
            return CachesProbe(asyncio.run(_ask(config, Path(folder) / "journal.db", say)), kept=False)
    except (StoreError, OSError) as exc:
        return CachesProbe({}, problem=str(exc))


async def _ask(config: Config, path: Path, say: Callable[[str], None]) -> dict[str, Learned]:
    logging.getLogger("rkllm_mqtt").addHandler(logging.NullHandler())  # the findings say it
    journal = await Journal.open(
        path, ballast_mb=0 if path != config.journal.path else config.journal.ballast_mb
    )
    changed = asyncio.Event()
    slot = Slot(config, read_catalogue(config), changed.set)
    serving = asyncio.create_task(slot.run(), name="slot")
    try:
        probed = _Probed(config, slot, Knowledge(slot, journal), changed, path.parent / FOLDER)
        learned = {}
        for model_id in slot.catalogue.ids:
            say(f"asking the runtime what it does with caches of {model_id} …")
            learned[model_id] = await probed.model(model_id)
        return learned
    finally:
        await slot.close()
        serving.cancel()
        await asyncio.wait({serving})
        await journal.close()


class _Probed:
    """Models, loaded and probed one after the other."""

    def __init__(
        self, config: Config, slot: Slot, knowledge: Knowledge, changed: asyncio.Event, folder: Path
    ) -> None:
        self._slot = slot
        self._knowledge = knowledge
        self._changed = changed
        margin_s = max(config.runtime.abort_grace_s, config.runtime.stall_timeout_s)
        self._probing = Probing(
            slot,
            knowledge,
            folder,
            idle_s=None,
            limit_s=lambda _model_id, chars: Pace().first_token_limit_s(chars, margin_s),
        )

    async def model(self, model_id: str) -> Learned:
        """Ask everything anew."""
        model = self._slot.catalogue.settings(model_id)
        if model is not None and model.n_batch > 1:
            return Learned(problem="it runs prompts in batches, which use no caches")
        self._slot.use(model_id)
        self._knowledge.forget(model_id)
        while await self._loaded() and not await self._probing.all():
            pass  # the worker was lost: what is left is asked of the next one
        problem = self._slot.problem
        if problem is not None:
            return Learned(problem=problem.message, hint=problem.hint)
        return Learned(self._knowledge.facts_of(model_id), self._knowledge.failed_steps(model_id))

    async def _loaded(self) -> bool:
        while self._slot.loaded is None and self._slot.problem is None:
            self._changed.clear()
            await self._changed.wait()
        return self._slot.loaded is not None
