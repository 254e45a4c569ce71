"""The models that can be asked for: one list, into which all parts look and of whose changes they hear.

Knows no files: `inventory` looks at them and puts down here what it has found.
"""

from collections.abc import Callable, Sequence, Set

from msgspec import Struct

from rkllm_mqtt.config.models import ModelConfig
from rkllm_mqtt.config.settings import Config
from rkllm_mqtt.core.errors import Fault

DEMO = "demo"
"""Id of the simulator's demonstration model, which is there while there is no other."""


class Entry(Struct, frozen=True):
    """One model."""

    id: str
    settings: ModelConfig | None
    """None: the demonstration model's."""
    fault: Fault | None = None
    """Why it cannot be loaded; None: nothing is known that speaks against it."""


class Change(Struct, frozen=True):
    """What has become of the models, by their ids."""

    added: frozenset[str]
    removed: frozenset[str]
    changed: frozenset[str]
    """They have other settings, another template, another fault or none any more."""


class Catalogue:
    """The models of one daemon; the first is the default. It is never empty.

    Args:
        entries: In their order, at least one.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._hearers: list[Callable[[Change], None]] = []

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._entries

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of the models in their order."""
        return tuple(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return all models in their order."""
        return tuple(self._entries.values())

    @property
    def default(self) -> str:
        """Return the model of requests that name none."""
        return next(iter(self._entries))

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """Return the settings of all models but the demonstration model."""
        return tuple(entry.settings for entry in self._entries.values() if entry.settings is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Return all that a request may name: models, and models with each of their adapters."""
        return tuple(
            name
            for entry in self._entries.values()
            for name in (entry.settings.names if entry.settings is not None else (entry.id,))
        )

    def settings(self, model_id: str) -> ModelConfig | None:
        """Return the settings of a model; None: the demonstration model, or one that is not listed."""
        entry = self._entries.get(model_id)
        return None if entry is None else entry.settings

    def fault(self, model_id: str) -> Fault | None:
        """Return why a listed model cannot be loaded; None when nothing is known that speaks against it."""
        entry = self._entries.get(model_id)
        return None if entry is None else entry.fault

    def find(self, name: str | None) -> tuple[str, str | None] | None:
        """Return the model that `<model>` or `<model>:<adapter>` means and the adapter; None: there is none.

        Args:
            name: As in a request; None is the default.
        """
        if name is None or name in self._entries:
            return name or self.default, None
        base, _, lora = name.rpartition(":")
        model = self.settings(base)
        return (base, lora) if model is not None and name in model.names else None

    def listen(self, hear: Callable[[Change], None]) -> None:
        """Let a part hear of each change, after it was made; in the order in which they asked for it."""
        self._hearers.append(hear)

    def put(self, entries: Sequence[Entry], renewed: Set[str] = frozenset()) -> None:
        """Put other models in the place of all, and tell what has changed.

        Args:
            entries: At least one.
            renewed: Models that have changed in what does not stand in their entry: a file of theirs.
        """
        old, new = self._entries, {entry.id: entry for entry in entries}
        stayed = old.keys() & new.keys()
        renewed = renewed & stayed
        if list(old.values()) == list(new.values()) and not renewed:
            return
        self._entries = new
        change = Change(
            frozenset(new.keys() - old.keys()),
            frozenset(old.keys() - new.keys()),
            frozenset(model_id for model_id in stayed if old[model_id] != new[model_id]) | renewed,
        )
        for hear in self._hearers:
            hear(change)


def configured_entries(config: Config) -> tuple[Entry, ...]:
    """Return the models that stand in the configuration itself."""
    return tuple(Entry(model.id, model) for model in config.models)


def configured_catalogue(config: Config) -> Catalogue:
    """Return a catalogue of the models in the configuration, or of the demonstration model."""
    return Catalogue(configured_entries(config) or (Entry(DEMO, None),))
