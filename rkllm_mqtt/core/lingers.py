"""Learn how soon a client comes back with the results of its tools: so long the slot waits for it.

Pure. Gaps are seconds from an answer with tool calls to the client's next request that brings results.
"""

from collections import OrderedDict, deque

from msgspec import Struct, field

_KEPT = 12
_TRIES = 3
"""An unknown client is waited for so often before it must have come once."""
_MARGIN = 1.25
_MARGIN_S = 0.03
_COVERED = 0.8
"""Part of the gaps that a wait covers."""
_FORGOTTEN_S = 60.0
"""Who comes so late does not come back for its tools."""


class Habit(Struct):
    """The last gaps of a client."""

    gaps_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Infinite where it never came."""
    called_at: float | None = None
    """When it got tool calls that it has not come back for yet."""

    def linger_s(self, most_s: float) -> float:
        """Return how long to wait for it."""
        came = sorted(gap for gap in self.gaps_s if gap <= most_s)
        if not came:
            return most_s if len(self.gaps_s) < _TRIES else 0.0
        if 2 * len(came) < len(self.gaps_s):
            return 0.0  # it comes too late more often than in time
        covered = came[min(len(came) - 1, int(_COVERED * len(came)))]
        return min(most_s, covered * _MARGIN + _MARGIN_S)


class Lingers(Struct):
    """The habits of all clients."""

    most_s: float = 1.0
    """Longest wait; 0 waits for nobody."""
    remembered: int = 1_000
    _habits: OrderedDict[str, Habit] = field(default_factory=OrderedDict)

    def called(self, client: str, now: float) -> float:
        """A client has got tool calls; return how long to wait for their results, seconds."""
        habit = self._habit(client)
        # Who is asked again and never comes must not be waited for because nobody counts.
        self._miss(habit, now, self.most_s)
        habit.called_at = now
        return habit.linger_s(self.most_s)

    def expects(self, client: str) -> bool:
        """Return whether a wait would follow if a client got tool calls now."""
        return self.most_s > 0 and self._habit(client).linger_s(self.most_s) > 0

    def came(self, client: str, now: float) -> None:
        """A client has brought results of tools."""
        habit = self._habits.get(client)
        if habit is not None and habit.called_at is not None:
            self._miss(habit, now, _FORGOTTEN_S)
            if habit.called_at is not None:
                habit.gaps_s.append(max(0.0, now - habit.called_at))
                habit.called_at = None

    @staticmethod
    def _miss(habit: Habit, now: float, patience_s: float) -> None:
        """Count a round that never came."""
        if habit.called_at is not None and now - habit.called_at > patience_s:
            habit.gaps_s.append(float("inf"))
            habit.called_at = None

    def _habit(self, client: str) -> Habit:
        habit = self._habits.get(client)
        if habit is None:
            habit = self._habits[client] = Habit()
            if len(self._habits) > self.remembered:
                self._habits.popitem(last=False)
        self._habits.move_to_end(client)
        return habit
