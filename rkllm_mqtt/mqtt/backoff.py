"""How long to wait before the next attempt to connect.

Pure: outcomes go in, seconds come out.

Rule 1: full jitter, so that the clients of a broker that restarts do not return in step.
Rule 2: a connection counts as good only after it has lasted: one that is lost at once is part of the trouble.
Rule 3: when another client has taken our session over, hurry only throws it out in turn.
"""

import random
from collections.abc import Callable

FIRST_S = 1.0
"""Ceiling of the first pause; doubled with every further failure."""

LASTING_S = 10.0
"""A connection that lasted so long was a good one."""

QUICK_LOSSES = 3
"""So many connections in a row, each lost before it lasted, look like a take-over, if nobody says so."""


class BackOff:
    """The pauses of one session."""

    def __init__(self, longest_s: float, chance: Callable[[], float] = random.random) -> None:
        self._longest_s = longest_s
        self._chance = chance
        self._failures = 0
        self._quick_losses = 0

    def lost(self, lasted_s: float) -> None:
        """Note that an established connection ended after so many seconds."""
        if lasted_s >= LASTING_S:
            self.lasting()
        else:
            self._quick_losses += 1

    def lasting(self) -> None:
        """Forget past failures: the connection is good."""
        self._failures = 0
        self._quick_losses = 0

    @property
    def unsteady(self) -> bool:
        """Return whether connections are made, and lost at once, again and again."""
        return self._quick_losses >= QUICK_LOSSES

    def pause_s(self, *, taken_over: bool) -> float:
        """Return the seconds to wait, and count the failure.

        Between 0 and 1, 2, 4, ... up to the longest pause; after a take-over between half of it and all.
        """
        doubled_s: float = FIRST_S * 2 ** min(self._failures, 16)
        ceiling_s = min(self._longest_s, doubled_s)
        self._failures += 1
        if taken_over:
            return self._longest_s * (0.5 + 0.5 * self._chance())
        return ceiling_s * self._chance()
