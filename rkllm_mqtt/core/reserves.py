"""What the lower classes keep of the slot while higher ones never end: a debt for each, paid in small parts.

Pure. While a class waits its debt grows by its share of the time that passes; while it runs the debt falls.

Rule 1: a class is owed when its debt has reached a fifteenth of its share of the window: the voice is
    disturbed for a second now and then, and only when it has kept the slot for half a minute.
Rule 2: debts grow a fifth faster than the share, which pays for what is still owed when a window ends.
Rule 3: only where that is not enough, because the voice's answers are long, its share is at risk: then its
    job goes on until that is over.
Rule 4: who had more than its share keeps but a moment of it as a disadvantage: any window counts anew.
"""

from collections.abc import Sequence

from msgspec import Struct, field

from rkllm_mqtt.core.job import Priority

_AHEAD = 1.2
_OWED_PART = 1 / 15
_AT_RISK_PART = 1 / 10
"""A fifth would break the promise of a window; what is between is for an answer of the voice, 50 s long."""
_CREDIT_PART = 1 / 30


class Reserves(Struct):
    """The debts of the classes, seconds of slot time."""

    window_s: float = 600.0
    """Any so many seconds in which a class waits give it its share."""
    shares: Sequence[float] = (0.0, 0.15, 0.05)
    """Parts of the slot time, by `Priority`; the highest class needs none."""
    debts_s: list[float] = field(default_factory=lambda: [0.0] * len(Priority))
    _at: float | None = None
    _waited: Sequence[bool] = (False,) * len(Priority)
    _ran: Priority | None = None

    def advance(self, now: float, waits: Sequence[bool], running: Priority | None) -> None:
        """Account for the time since the last call by what was so then, and take note of what is so now.

        Args:
            now: Seconds of any clock that does not step back.
            waits: Which classes have a job waiting.
            running: The class that has the slot.
        """
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now if self._at is None else max(now, self._at)
        if passed:
            self._account(passed, self._waited, self._ran)
        self._waited, self._ran = waits, running

    def owes(self, priority: Priority) -> bool:
        """Return whether a class lacks slot time."""
        share = self.shares[priority]
        return share > 0 and self.debts_s[priority] >= _OWED_PART * share * self.window_s

    def is_at_risk(self, priority: Priority) -> bool:
        """Return whether a class lacks so much that a window could end with less than its share."""
        share = self.shares[priority]
        return share > 0 and self.debts_s[priority] >= _AT_RISK_PART * share * self.window_s

    def owed(self) -> tuple[bool, ...]:
        """Return which classes lack slot time, by `Priority`."""
        return tuple(map(self.owes, Priority))

    def _account(self, passed: float, waits: Sequence[bool], running: Priority | None) -> None:
        for priority in Priority:
            share = self.shares[priority]
            if not share:
                continue
            debt = self.debts_s[priority]
            if waits[priority]:
                debt += _AHEAD * share * passed
            if running is priority:
                debt -= passed
            elif not waits[priority]:
                debt *= max(0.0, 1 - passed / self.window_s)
            self.debts_s[priority] = max(debt, -_CREDIT_PART * share * self.window_s)


def choose_class(waits: Sequence[bool], owed: Sequence[bool]) -> Priority | None:
    """Return the class whose turn it is: the highest that is owed, else the highest that waits."""
    for priority in Priority:
        if waits[priority] and owed[priority]:
            return priority
    return next((priority for priority in Priority if waits[priority]), None)
