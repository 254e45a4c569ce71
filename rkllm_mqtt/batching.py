"""Batches as the slot runs them: switched off when they crash or gain too little, kept in the journal.

Rule 1: a model with `n_batch` is loaded for as many columns as its record allows, and the slot knows at once
    when a batch was lost: the next worker is loaded for one.
Rule 2: what a single step takes is learned from runs that somebody wanted: of another entry with the same
    file, or of this one, loaded for single runs while the slot is idle.
"""

import asyncio
from collections.abc import Callable

from rkllm_mqtt.config import ModelConfig
from rkllm_mqtt.config.catalogue import Catalogue
from rkllm_mqtt.core.batches import BatchRecord, step_ms
from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.runtime.run import Run, RunEnd
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_IDLE_S = 30.0
"""A slot that is idle for so long may load a model for single runs, to compare."""


class Batching:
    """Whether each model runs batches, and what they gain."""

    def __init__(self, slot: Slot, catalogue: Catalogue, journal: Journal, wake: Callable[[], None]) -> None:
        """Take up what an earlier process learned.

        Args:
            slot: Is told how to load its models.
            catalogue: The models.
            journal: Open.
            wake: Called when the slot is to be looked at again.
        """
        self._slot = slot
        self._catalogue = catalogue
        self._journal = journal
        self._wake = wake
        self._models: dict[str, ModelConfig] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._changed: set[str] = set()
        self._records: dict[str, BatchRecord] = {}
        self._suspects: dict[str, set[int]] = {}
        """By model: the jobs of lost batches; any of them may have been the cause."""
        self._unloadable: set[str] = set()
        """Models that did not load for a batch, and have not been loaded since."""
        slot.on_batch_lost = self.lost
        slot.on_unloadable = self.unloadable
        self.models_changed()

    def models_changed(self) -> None:
        """Hear which models there are now; what is known of one that went and comes again is kept."""
        self._models = {model.id: model for model in self._catalogue.models if model.n_batch > 1}
        for model_id in self._records.keys() - self._models.keys():
            del self._records[model_id]
        for model_id in self._models:
            if model_id not in self._records:
                kept = self._journal.meta.get(_key(model_id), "")
                self._records[model_id] = BatchRecord.from_json(kept)
            self._apply(model_id)

    def look(self, *, idle: bool) -> None:
        """Look at the loaded model; `idle`: nothing runs and nothing waits."""
        if self._timer is not None and not idle:
            self._timer.cancel()
            self._timer = None
        model_id = self._slot.loaded
        if model_id is None or (record := self._records.get(model_id)) is None:
            return
        version = self._slot.facts.version
        if record.version != version:
            # Another runtime may do better, or worse.
            if record.version is not None:
                record = self._records[model_id] = BatchRecord()
            record.version = version
            self._changed.add(model_id)
            self._apply(model_id)
        if idle and record.needs_single and not record.measuring and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_IDLE_S, self._measure, model_id)

    def learn(self, model_id: str, run: Run, end: RunEnd) -> None:
        """Take the figures of a run that has ended."""
        each = step_ms(end.tokens - run.order.carried_tokens, end.generate_ms)
        model = self._catalogue.settings(model_id)
        if each is None or model is None:
            return
        if run.in_batch:
            if model_id in self._records:  # else its settings have changed meanwhile
                self._records[model_id].batch_ms.append(each)
                self._judge(model_id)
            return
        for other_id, other in self._models.items():
            if other.file == model.file:
                self._records[other_id].single_ms.append(each)
                self._judge(other_id)

    def lost(self, model_id: str, reason: str, job: int | None = None) -> None:
        """A batch was lost with its worker, or the library failed in it: run one by one from now on.

        Args:
            model_id: Whose batch it was.
            reason: For health.
            job: The number of one of those that were in it.
        """
        record = self._records.get(model_id)
        suspects = self._suspects.setdefault(model_id, set())
        if job is not None:
            suspects.add(job)
        if record is not None and record.off != "crash":
            record.lose(reason)
            log.warning("batch_off", model=model_id, reason=reason)
            self._changed.add(model_id)
            self._apply(model_id)

    def unloadable(self, model_id: str, columns: int, reason: str) -> bool:
        """A load has failed; return whether the next one, for single runs, may do better.

        One prompt takes less memory than several. Where that fails too it is not the batch's fault.
        """
        if columns > 1 and self._slot.facts.capabilities.get("n_batch"):
            self._unloadable.add(model_id)
            self.lost(model_id, reason)
            return True
        if model_id in self._unloadable:
            self._unloadable.discard(model_id)
            self.try_again(model_id)
        return False

    def acquit(self, model_id: str, job: int) -> None:
        """A job of a lost batch is lost alone too, each time: run batches again, it was not their fault."""
        record, suspects = self._records.get(model_id), self._suspects.get(model_id, set())
        if record is not None and record.off == "crash" and job in suspects:
            log.info("batch_acquitted", model=model_id)
            suspects.clear()
            self.try_again(model_id)

    def try_again(self, model_id: str) -> bool:
        """Let a model run batches again; False when none are configured for it."""
        record = self._records.get(model_id)
        if record is None:
            return False
        record.try_again()
        self._changed.add(model_id)
        self._apply(model_id)
        return True

    @property
    def worth_keeping(self) -> bool:
        """Return whether something is to be stored."""
        return bool(self._changed)

    async def keep(self) -> None:
        """Store what has changed."""
        changed, self._changed = self._changed, set()
        for model_id in changed & self._records.keys():
            await self._journal.set_meta(_key(model_id), self._records[model_id].to_json())

    @property
    def reasons(self) -> list[Reason]:
        """Return what health says: the models whose batches are off."""
        return [
            Reason(
                "batch_off",
                f"model {model_id} runs its prompts one by one: {_told(record)}",
                f'To try again: admin command `model` with {{"id": "{model_id}", "batch": true}}; '
                "or set its `n_batch` to 1.",
            )
            for model_id, record in self._records.items()
            if record.off
        ]

    def _judge(self, model_id: str) -> None:
        record, columns = self._records[model_id], self._models[model_id].n_batch
        if record.measuring and record.single_ms:
            record.measuring = False
            self._changed.add(model_id)
        record.judge(columns)
        if record.off:
            self._changed.add(model_id)
        elif record.needs_single and record.well_measured:
            record.measuring = True  # the slot is never idle: it has to be done in between
        self._apply(model_id)

    def _measure(self, model_id: str) -> None:
        self._timer = None
        if model_id in self._records:
            self._records[model_id].measuring = True
            self._apply(model_id)
            self._wake()

    def _apply(self, model_id: str) -> None:
        record = self._records[model_id]
        self._slot.load_with(model_id, record.columns(self._models[model_id].n_batch))


def _key(model_id: str) -> str:
    return f"batch:{model_id}"


def _told(record: BatchRecord) -> str:
    return f"the library failed in a batch ({record.why})" if record.off == "crash" else record.why
