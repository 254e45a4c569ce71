"""How long a model takes to load: seeded by the size of its file, learned from the real loads of this board.

Pure.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from statistics import median

_KEPT = 5
_BYTES_PER_S = 250e6
# From eMMC or an SD card slower, from NVMe or the page cache faster: the first real load replaces it.
_LEAST_S = 0.5


class Loads:
    """The load times of all models."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._seen: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def expect(self, model: str, size_bytes: int) -> None:
        """Take the size of a model's file; where it has changed, what was learned is void."""
        if self._sizes.get(model, size_bytes) != size_bytes:
            self._seen.pop(model, None)
        self._sizes[model] = size_bytes

    def learn(self, model: str, seconds: float) -> None:
        """Take the time of a real load."""
        self._seen[model].append(seconds)

    def seconds(self, model: str) -> float:
        """Return about how long the next load will take."""
        if self._seen.get(model):
            return median(self._seen[model])
        return _LEAST_S + self._sizes.get(model, 0) / _BYTES_PER_S

    def to_json(self) -> Mapping[str, Sequence[float]]:
        """Return what was learned, to be kept."""
        return {model: [round(seconds, 3) for seconds in seen] for model, seen in self._seen.items() if seen}

    def resume(self, kept: Mapping[str, Sequence[float]]) -> None:
        """Take up what an earlier process learned; what was seen since counts more."""
        for model, seen in kept.items():
            self._seen[model].extendleft(reversed(seen[: _KEPT - len(self._seen[model])]))
