"""How often workers were lost and loads failed in a row, and how long to wait for it before the next try.

Pure.
"""

from msgspec import Struct

_FREE_RESTARTS = 3
_FIRST_PAUSE_S = 0.5
_DOUBLINGS = 16


class Setbacks(Struct):
    """Since the last run that ended as it should."""

    losses: int = 0
    """Workers that ended by themselves."""
    load_failures: int = 0

    def pause_s(self, longest_s: float) -> float:
        """Return how long to wait before the next worker, seconds; 0: not at all.

        Each further setback doubles it, up to `longest_s`; a few lost workers cost nothing.
        """
        failures = max(self.load_failures, self.losses - _FREE_RESTARTS)
        if failures <= 0:
            return 0.0
        return min(longest_s, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, _DOUBLINGS))
