"""Let the library wait while the broker takes deltas more slowly than they are made, for a bounded time."""

import asyncio
from collections.abc import Callable

_HIGH_BYTES = 262_144
_LOW_BYTES = 65_536
_LOOK_S = 0.005
_LONGEST_S = 1.0
"""A connection that takes nothing for so long is stalled: then deltas are dropped, and the slot goes on."""


class BackPressure:
    """Holds the slot by what the network has not taken."""

    def __init__(
        self, unsent_bytes: Callable[[], int], hold: Callable[[], None], release: Callable[[], None]
    ) -> None:
        """Keep the arguments; `hold` and `release` are called in turn."""
        self._unsent_bytes = unsent_bytes
        self._hold = hold
        self._release = release
        self._held_since: float | None = None
        self._given_up = False

    def sent(self) -> None:
        """Something was sent; called for each delta."""
        if self._held_since is not None or self._unsent_bytes() < _HIGH_BYTES:
            return
        loop = asyncio.get_running_loop()
        self._held_since = loop.time()
        if not self._given_up:
            self._hold()
        loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        held_s = loop.time() - (self._held_since or 0.0)
        flows = self._unsent_bytes() < _LOW_BYTES
        if flows or held_s > _LONGEST_S:
            self._held_since = None
            self._given_up = not flows
            self._release()
        else:
            loop.call_later(_LOOK_S, self._look)
