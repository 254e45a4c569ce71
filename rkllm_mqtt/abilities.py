"""What the runtime can do; before it has said so, what the same library said to an earlier process.

Requests come in before the library is loaded: their senders are told all the same what has no effect.
"""

import json
from collections.abc import Mapping

from rkllm_mqtt.config import Config
from rkllm_mqtt.runtime.facts import stamp_of
from rkllm_mqtt.runtime.order import find_library
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.journal import Journal

META_KEY = "abilities"


class Abilities:
    """The capabilities of the runtime.

    Args:
        config: Of the daemon.
        slot: Has asked the library, once a worker has begun.
        journal: Open; remembers.
    """

    def __init__(self, config: Config, slot: Slot, journal: Journal) -> None:
        self._config = config
        self._slot = slot
        self._journal = journal
        self._said: dict[str, bool] | None = None
        """What the library that lies there said; None: it was not looked up yet."""

    def now(self) -> Mapping[str, bool] | None:
        """Return the capabilities by their names; None when nothing is known of this library."""
        if self._slot.facts.capabilities:
            return self._slot.facts.capabilities
        if self._said is None:
            kept = json.loads(self._journal.meta.get(META_KEY, "{}"))
            self._said = kept["said"] if kept.get("of") == self._library() else {}
        return self._said or None

    async def keep(self) -> None:
        """Store what the library has said.

        Raises:
            StoreError: The journal cannot be written.
        """
        kept = json.dumps({"of": self._library(), "said": self._slot.facts.capabilities})
        if self._slot.facts.capabilities and kept != self._journal.meta.get(META_KEY):
            await self._journal.set_meta(META_KEY, kept)

    def _library(self) -> list[object]:
        """Return what tells the library from any other, as JSON has it."""
        runtime = self._config.runtime
        library = find_library(self._config, self._slot.catalogue.models)
        return [list(map(list, stamp_of(library))), runtime.version, runtime.simulator_version]
