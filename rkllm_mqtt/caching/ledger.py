"""What prompt-cache files have done since the start, and what was written on the disk today."""

import json
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from rkllm_mqtt.store.journal import Journal

_KEY = "cache_written"
_DAY_S = 86_400


class Counts(Struct):
    """Totals since the start of the daemon."""

    restores: int = 0
    saves: int = 0
    failures: int = 0
    """Files that were not loaded, helped nothing, killed the worker or could not be written."""


class Ledger:
    """The bytes written on the disk in this day, kept over restarts."""

    def __init__(self, journal: Journal, mb_per_day: int, clock: Callable[[], float] = time.time) -> None:
        """Take up what an earlier process has written today.

        Args:
            journal: Open.
            mb_per_day: The bound.
            clock: Unix seconds.
        """
        self._journal = journal
        self._most = mb_per_day * 1_000_000
        self._clock = clock
        self._day, self._written = _read(journal.meta.get(_KEY, ""))
        self._changed = False

    @property
    def written(self) -> int:
        """Return the bytes written today."""
        self._look()
        return self._written

    def may_write(self, size: int) -> bool:
        """Return whether so many bytes may still be written today."""
        return self.written + size <= self._most

    def write(self, size: int) -> None:
        """Take bytes that were written."""
        self._look()
        self._written += size
        self._changed = True

    @property
    def worth_keeping(self) -> bool:
        """Return whether bytes were written since it was stored."""
        return self._changed

    async def keep(self) -> None:
        """Store it if it has changed."""
        if self._changed:
            self._changed = False
            await self._journal.set_meta(_KEY, json.dumps([self._day, self._written]))

    def _look(self) -> None:
        # A clock that is set back begins no new day: what was written today stays written.
        today = int(self._clock() // _DAY_S)
        if today > self._day:
            self._day, self._written = today, 0


def _read(text: str) -> tuple[int, int]:
    try:
        kept: Any = json.loads(text)
        return int(kept[0]), max(0, int(kept[1]))
    except (ValueError, TypeError, IndexError, KeyError):
        return 0, 0
