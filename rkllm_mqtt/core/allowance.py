"""How much a client may ask and be told: buckets of tokens, and the refusals of a second; for many clients.

Pure: the time comes in. A client that nobody has heard of has its full allowance, so forgetting the least
recent one is never to anybody's loss, and a sender that invents names fills no memory.
"""

import math
from collections import OrderedDict

from msgspec import Struct

_ONE = 1 - 1e-9
"""A token, as the sum of its parts may turn out."""
_TICK_S = 0.1
"""Tokens come back in lots: ten jobs at once cost the disk, and the PUBACKs behind them, one commit."""
_SPREAD_S = 0.05
_COMPANY_S = 10.0
"""So long after its last request a modest client still counts as company."""
_STEADY_S = 0.05
"""Time between two requests after which a modest client is no beginning of a burst."""
_MODEST_SPENT = 3
"""Most tokens that somebody lacks who asks now and then."""


class Rate(Struct, frozen=True):
    """How fast a client may ask."""

    per_s: float
    """Tokens that come back in a second."""
    burst: int
    """Most tokens at once."""
    burst_alone: int
    """The same while no modest client asks at the same time; not below `burst`."""


class Allowance(Struct):
    """What is left for one client; times in seconds of one clock that never steps back."""

    tokens: float
    tokens_alone: float
    at: float
    """When tokens came back last."""
    full_at: float
    """When all of `tokens` were there last: since then it asks faster than they come back."""
    told: int = 0
    """Refusals told since `told_since`."""
    told_since: float = float("-inf")

    def tell(self, now: float, most: int, span_s: float = 1.0) -> bool:
        """Return whether one more refusal may be told: `most` in a time that begins with its first."""
        if now - self.told_since >= span_s:
            self.told, self.told_since = 0, now
        if self.told >= most:
            return False
        self.told += 1
        return True

    def next_in_s(self, now: float, per_s: float) -> float:
        """Return the seconds until the next token is there; 0 when it is."""
        if self.tokens >= _ONE:
            return 0.0
        ticks = math.ceil((_ONE - self.tokens) / (per_s * _TICK_S) + 1e-10)
        return max(0.0, self.at + ticks * _TICK_S - now)


class Allowances:
    """The allowance of each client heard of lately."""

    def __init__(self, kept: int) -> None:
        """Remember at most `kept` clients."""
        self._kept = kept
        self._by_client: OrderedDict[str, Allowance] = OrderedDict()
        self._modest: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Since when, and when last, each client asked that asks now and then; the newest at the end."""

    def __len__(self) -> int:
        return len(self._by_client)

    def of(self, client: str, now: float, rate: Rate) -> Allowance:
        """Return the allowance of a client; a full one when it is not remembered."""
        allowance = self._by_client.get(client)
        if allowance is not None:
            self._by_client.move_to_end(client)
            return allowance
        if len(self._by_client) >= self._kept:
            forgotten, _ = self._by_client.popitem(last=False)
            self._modest.pop(forgotten, None)
        allowance = self._by_client[client] = Allowance(rate.burst, rate.burst_alone, now, now)
        return allowance

    def spend(self, client: str, now: float, rate: Rate) -> bool:
        """Take a token of a client for a request; return False when it has none.

        A client that has the daemon for itself may send many at once. One that keeps others waiting, who ask
        now and then, has the smaller bucket: what it sends at once is what they wait for.
        """
        own = self.of(client, now, rate)
        ticks = int((now - own.at) / _TICK_S)
        own.at += ticks * _TICK_S
        own.tokens = min(rate.burst, own.tokens + ticks * _TICK_S * rate.per_s)
        own.tokens_alone = min(rate.burst_alone, own.tokens_alone + ticks * _TICK_S * rate.per_s)
        if own.tokens >= rate.burst:
            own.full_at = now
        if own.tokens < _ONE and (own.tokens_alone < _ONE or self._has_company(client, own, now)):
            return False
        own.tokens = max(0.0, own.tokens - 1)
        own.tokens_alone = max(0.0, own.tokens_alone - 1)
        since, last = self._modest.pop(client, (now, now))
        if own.tokens >= rate.burst - min(_MODEST_SPENT, 0.2 * rate.burst):
            self._modest[client] = (since if now - last < _COMPANY_S else now, now)
        return True

    def tell(self, client: str, now: float, rate: Rate, per_s: int) -> bool:
        """Return whether a client may be told one more refusal: `per_s` in a second from the first.

        In company they are spread over the second: what is told at once is what the others wait for.
        """
        own = self.of(client, now, rate)
        span_s, most = 1.0, per_s
        if self._has_company(client, own, now):
            span_s = max(_SPREAD_S, 1 / per_s)
            most = max(1, int(per_s * span_s))
        return own.tell(now, most, span_s)

    def _has_company(self, client: str, own: Allowance, now: float) -> bool:
        """Return whether a modest client has asked since this one asks too fast."""
        for other, (since, last) in reversed(self._modest.items()):
            if last < max(own.full_at, now - _COMPANY_S):
                return False
            if other != client and last - since >= _STEADY_S:
                return True
        return False
