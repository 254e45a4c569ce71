"""Keep the slot free for a question that is about to come: announced by a wake word, or the next tool round.

Pure. In a hold nothing of a lower class begins but a normal prompt that the holder has sent since.

Rule 1: a hold is over when its time is up, when its holder asks, or when anybody's interactive work begins.
Rule 2: others are kept waiting by holds for a small part of any window: all holds together have a share of
    it, one client half of that. A hold that keeps nobody waiting costs nothing of it.
Rule 3: a class that is owed slot time ends a hold (`Reserves`).
"""

from collections import OrderedDict
from collections.abc import Mapping

from msgspec import Struct, field

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.waiting import Job

Holders = Mapping[str, float]
"""The clients for which the slot is held, each with the second since when its prompts may be the question."""

_LEAST_S = 0.02
"""A shorter hold is none: what comes so soon meets nothing but a run that has just begun."""


class _Account(Struct):
    """A share of any window: half of it at once, and the other half as the window passes."""

    share: float
    window_s: float
    at: float
    left_s: float = 0.0

    def __post_init__(self) -> None:
        self.left_s = self.share * self.window_s / 2

    def fill(self, now: float) -> None:
        """Let the time pass."""
        most_s = self.share * self.window_s / 2
        self.left_s = min(most_s, self.left_s + self.share / 2 * max(0.0, now - self.at))
        self.at = max(self.at, now)


class Holds(Struct):
    """The hold of the slot, if there is one, and the accounts that bound them."""

    share: float = 0.2
    """Of any window."""
    window_s: float = 600.0
    remembered: int = 1_000
    """Clients whose accounts are kept."""
    holder: str | None = None
    """The client for which the slot is held; None: for nobody."""
    until: float = float("-inf")
    held_s: float = 0.0
    """Seconds that the slot stood idle in holds."""
    count: int = 0
    """Holds so far."""
    since: float = 0.0
    """When the holder announced its question: what it sent before is not that."""
    _promised: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Clients of the runs in the slot behind which a hold may follow, and since when, by their numbers."""
    _all: _Account | None = None
    _accounts: OrderedDict[str, _Account] = field(default_factory=OrderedDict)
    _at: float = float("-inf")
    _waits: bool = False
    _idle: bool = False

    def limit(self, share: float) -> None:
        """Bound all holds by another share; what is left of an account is at most what that gives at once."""
        self.share = share
        for account in (self._all, *self._accounts.values()):
            if account is not None:
                account.share = share if account is self._all else share / 2

    def advance(self, now: float, *, waits: bool, busy: bool) -> tuple[str, float] | None:
        """Account for the time since the last call by what was so then, and take note of what is so now.

        Returns:
            Who has kept others waiting meanwhile, and for how many seconds.

        Args:
            now: Seconds of any clock that does not step back.
            waits: Something waits for the slot.
            busy: Something runs in it.
        """
        charged = None
        if self.holder is not None and self._idle:
            passed_s = max(0.0, min(now, self.until) - self._at)
            self.held_s += passed_s
            if self._waits and passed_s:
                charged = self.holder, passed_s
                for account in (self._total(now), self._account(self.holder, now)):
                    account.left_s -= passed_s
        self._at = max(self._at, now)
        self._waits, self._idle = waits, not busy
        if self.holder is not None and now >= self.until:
            self.holder = None
        return charged

    def grant_s(self, client: str, wished_s: float, now: float) -> float:
        """Return how long a client may hold the slot now, seconds; 0 is not at all."""
        left_s = min(self._total(now).left_s, self._account(client, now).left_s)
        granted_s = min(wished_s, left_s)
        return granted_s if granted_s >= _LEAST_S else 0.0

    def promise(self, number: int, client: str, since: float) -> None:
        """A run is in the slot behind which a hold may follow: nothing lower is to be staged there."""
        self._promised[number] = client, since

    def withdraw(self, number: int) -> None:
        """That run has ended."""
        self._promised.pop(number, None)

    def hold(self, client: str, seconds: float, now: float, since: float) -> None:
        """Hold the slot for a client in the place of any other hold; `seconds` is what `grant_s` allows."""
        if seconds > 0:
            self.holder, self.until, self.since = client, now + seconds, since
            self.count += 1
        elif self.holder == client:
            self.holder = None

    def end(self) -> None:
        """The hold has served, or must not go on."""
        self.holder = None

    def holders(self, now: float) -> Holders:
        """Return the clients for which lower work has to wait; empty: everybody may begin."""
        holders = dict(self._promised.values())
        if self.holder is not None and now < self.until:
            holders[self.holder] = min(self.since, holders.get(self.holder, self.since))
        return holders

    def left_s(self, now: float) -> float:
        """Return how long the hold will still last when nobody comes, seconds."""
        return max(0.0, self.until - now) if self.holder is not None else 0.0

    def _total(self, now: float) -> _Account:
        if self._all is None:
            self._all = _Account(self.share, self.window_s, now)
        self._all.fill(now)
        return self._all

    def _account(self, client: str, now: float) -> _Account:
        account = self._accounts.get(client)
        if account is None:
            account = self._accounts[client] = _Account(self.share / 2, self.window_s, now)
            if len(self._accounts) > self.remembered:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(client)
        account.fill(now)
        return account


def may_begin(job: Job, holders: Holders) -> bool:
    """Return whether a job may begin although the slot is held."""
    if job.priority is Priority.INTERACTIVE or not holders:
        return True
    since = holders.get(job.client)
    return since is not None and job.priority is Priority.NORMAL and job.queued_at >= since
