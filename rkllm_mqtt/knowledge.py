"""What is known of the runtime's KV cache and prompt-cache files for each model, kept in the journal.

Rule 1: facts belong to one model file and one runtime; with another file or release nothing is known.
Rule 2: of a model that is not in the slot the last known facts are told: they are checked at its load.
Rule 3: a probe that did not come to an end is counted before it begins, so that no crash, not even one of the
    board, lets it begin again and again.
"""

import json
from contextlib import suppress
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.probes import GIVEN_UP, failed, next_step, without
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal


class _Known(Struct):
    of: list[Any]
    """The model file and the runtime: what was loaded."""
    facts: CacheFacts = field(default_factory=CacheFacts)
    begun: dict[str, int] = field(default_factory=dict)
    """How often each step of the probe began and did not end."""
    done: list[str] = field(default_factory=list)
    """Steps of the probe that have ended."""


class Knowledge:
    """The facts of each model, and how far their probe has come."""

    def __init__(self, slot: Slot, journal: Journal) -> None:
        """Keep the arguments.

        Args:
            slot: Says what is loaded.
            journal: Has what an earlier process learned.
        """
        self._slot = slot
        self._journal = journal
        self._changed: set[str] = set()
        self._known: dict[str, _Known] = {}

    def facts_of(self, model_id: str) -> CacheFacts:
        """Return what is known of a configured model; what is unprobed is None, and pessimistic."""
        return self._look(model_id).facts

    def learn(self, model_id: str, **found: Any) -> None:
        """Take facts of the loaded model by the names of their fields, from a probe or from a real run."""
        known = self._look(model_id)
        facts = replace(known.facts, **found)
        if facts != known.facts:
            known.facts = facts
            self._changed.add(model_id)

    # the probe

    def next_step(self, model_id: str) -> str | None:
        """Return what the probe of the loaded model asks next; None when there is nothing left to ask."""
        known = self._look(model_id)
        return next_step(known.facts, known.done, known.begun)

    async def begin(self, model_id: str, step: str) -> None:
        """Note that a step begins; returns when that is stored, so that not even a dead board repeats it."""
        known = self._look(model_id)
        known.begun[step] = known.begun.get(step, 0) + 1
        await self._store(model_id)

    def end(self, model_id: str, step: str, found: CacheFacts, *, done: bool) -> None:
        """Note what a step has found.

        Args:
            model_id: Of the model.
            step: That began.
            found: What is None was not found out.
            done: It came to its end; else it was interrupted, and is begun again some time.
        """
        known = self._look(model_id)
        known.begun.pop(step, None)
        if done:
            known.done.append(step)
        self._changed.add(model_id)
        self.learn(model_id, **{name: value for name, value in found.to_json().items() if value is not None})

    def fail(self, model_id: str, step: str) -> None:
        """Note that the library failed in a step: it is left alone from now on."""
        known = self._look(model_id)
        known.begun[step] = GIVEN_UP
        known.facts = replace(known.facts, **without(step))
        self._changed.add(model_id)

    def failed_steps(self, model_id: str) -> tuple[str, ...]:
        """Return the steps in which the library failed."""
        return failed(self._of(model_id).begun)

    def forget(self, model_id: str) -> None:
        """Let everything be asked anew."""
        self._known[model_id] = _Known(self._of(model_id).of)
        self._changed.add(model_id)

    @property
    def worth_keeping(self) -> bool:
        """Return whether something is to be stored."""
        return bool(self._changed)

    async def keep(self) -> None:
        """Store what has changed."""
        for model_id in tuple(self._changed):
            await self._store(model_id)

    async def _store(self, model_id: str) -> None:
        known = self._known[model_id]
        kept = {"of": known.of, "facts": known.facts.to_json(), "begun": known.begun, "done": known.done}
        self._changed.discard(model_id)
        try:
            await self._journal.set_meta(_key(model_id), json.dumps(kept))
        except StoreError:
            self._changed.add(model_id)
            raise

    def _look(self, model_id: str) -> _Known:
        """Return what is known, of what is loaded when this model is."""
        known = self._of(model_id)
        if self._slot.loaded == model_id and known.of != (loaded := self._slot.loaded_from):
            known = self._known[model_id] = _Known(loaded)
        return known

    def _of(self, model_id: str) -> _Known:
        """Return what was known last; models come while the daemon runs."""
        if model_id not in self._known:
            self._known[model_id] = _read(self._journal.meta.get(_key(model_id), ""))
        return self._known[model_id]


def kept_facts(text: str) -> tuple[CacheFacts, tuple[str, ...]]:
    """Return the facts, and the steps in which the library failed, of a value that `keep` wrote."""
    known = _read(text)
    return known.facts, failed(known.begun)


def _key(model_id: str) -> str:
    return f"facts:{model_id}"


def _read(text: str) -> _Known:
    """Return what `keep` wrote; nothing known for anything else."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(text)
        begun = {str(step): int(count) for step, count in kept["begun"].items()}
        done = [str(step) for step in kept["done"]]
        return _Known(list(kept["of"]), CacheFacts.from_json(kept["facts"]), begun, done)
    return _Known([])
