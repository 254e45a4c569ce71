"""How long the answers of a client usually are, and how much of its prompts is usually cached.

Pure. Means over the last runs, which begin at the mean of all clients; what is asked for seldom is forgotten.
"""

from collections import OrderedDict

from msgspec import Struct, field

_REMEMBERED_RUNS = 16
_UNKNOWN_TOKENS = 96.0


class Habit(Struct):
    """Two running means."""

    runs: int = 0
    tokens: float = 0.0
    uncached: float = 1.0
    """Share of the prompt that had to be computed."""

    def learn(self, tokens: int, uncached: float) -> None:
        """Take the figures of a finished run."""
        self.runs = min(_REMEMBERED_RUNS, self.runs + 1)
        self.tokens += (tokens - self.tokens) / self.runs
        self.uncached += (uncached - self.uncached) / self.runs


class Habits(Struct):
    """The habits of all clients; one that asks for answers of different lengths has several."""

    remembered: int = 10_000
    _all: Habit = field(default_factory=Habit)
    _known: OrderedDict[tuple[str, int], Habit] = field(default_factory=OrderedDict)

    def learn(self, client: str, max_tokens: int, tokens: int, uncached: float) -> None:
        """Take a finished run.

        Args:
            client: Who asked.
            max_tokens: The longest answer it asked for.
            tokens: The answer's.
            uncached: Share of the prompt that had to be computed, 0 to 1.
        """
        habit = self._known.setdefault((client, max_tokens), Habit())
        self._known.move_to_end((client, max_tokens))
        habit.learn(tokens, uncached)
        self._all.learn(tokens, uncached)
        if len(self._known) > self.remembered:
            self._known.popitem(last=False)

    def expected(self, client: str, max_tokens: int) -> tuple[float, float]:
        """Return the tokens of the next answer, and the share of its prompt that is to be computed."""
        tokens = self._all.tokens if self._all.runs else _UNKNOWN_TOKENS
        uncached = self._all.uncached
        habit = self._known.get((client, max_tokens))
        if habit is not None:
            # One run of one's own weighs as much as everybody's mean, six nearly all.
            weight = habit.runs**2 / (habit.runs**2 + 1)
            tokens += weight * (habit.tokens - tokens)
            uncached += weight * (habit.uncached - uncached)
        return min(tokens, max_tokens), uncached
