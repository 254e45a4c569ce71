"""What a client may ask: its rate, its places in the queue, and how often it is told that it may not.

Rule 1: whoever is refused more often than `limits.rejects_per_s` is not told each time, and nothing of such a
message is parsed or looked up: a flood costs its reading and its PUBACK. One event a second says how many.
Rule 2: what is dropped is never a promise: a request that is known already keeps its job and its outcome.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from rkllm_mqtt.config import ClientConfig, LimitsConfig
from rkllm_mqtt.core.allowance import Allowance, Allowances, Rate
from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.live import Counters, LiveJobs, count_down
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Outbound

log = get_logger(__name__)

_TOLD_EVERY_S = 1.0
_TOLD_CLIENTS = 200
"""Most clients that are told in a second how many of their messages were dropped."""
_TOGETHER = 5
"""All clients together are told so many times the refusals of one."""
_UNKNOWN_PACE_S = 30.0
"""What a sender is told to wait for a place before the first run has shown how long one takes."""

JobKey = tuple[str, str, str]
"""Target, client and id."""

Frees = Callable[[str | None], float | None]
"""Estimates when a waiting job of a client, or of anybody, begins, seconds; None when nobody can tell."""


class Quota:
    """Counts what each client asks; `fault` for each request, then `may_tell` for each refusal."""

    def __init__(
        self,
        limits: LimitsConfig,
        settings: Callable[[str], ClientConfig],
        live: LiveJobs,
        counters: Counters,
        send: Callable[[Outbound], bool],
        *,
        node: str,
        frees_in_s: Frees,
        now: Callable[[], float],
    ) -> None:
        """Keep the arguments; `settings` are those of a client, `now` is a clock that never steps back."""
        self._limits = limits
        self._settings = settings
        self._rate = lru_cache(maxsize=limits.client_states)(self._find_rate)
        self._live = live
        self._counters = counters
        self._send = send
        self._node = node
        self._frees_in_s = frees_in_s
        self._now = now
        self._allowances = Allowances(limits.client_states)
        self._everybody = Allowance(0, 0, 0, 0)
        self._entering: Counter[JobKey] = Counter()
        self._entering_of: Counter[str] = Counter()
        self._dropped: Counter[Mailbox] = Counter()
        """Messages dropped since their clients were told."""

    def apply(self, limits: LimitsConfig) -> None:
        """Take over changed limits, and what has changed in the settings of clients."""
        self._limits = limits
        self._rate.cache_clear()

    def fault(self, client: str, *, known: bool) -> Fault | None:
        """Count a request, and return why no new one is taken of this client; None when it is.

        Args:
            client: The sender.
            known: The request is an unfinished job already: it has its place.
        """
        if not self.spend(client):
            return Fault(
                Code.RATE_LIMITED,
                f"this client asks more often than {self._rate(client).per_s:g} times a second",
                "Ask less often; send this again later, with the same id.",
                self._next_in_s(client),
            )
        return None if known else self._no_place(client)

    def spend(self, client: str) -> bool:
        """Take a token of a client; return False when it has none left."""
        return self._allowances.spend(client, self._now(), self._rate(client))

    def may_tell(self, mailbox: Mailbox) -> bool:
        """Return whether a refusal is told; False counts the message as dropped."""
        now, client, per_s = self._now(), mailbox.client, self._limits.rejects_per_s
        mine = self._allowances.tell(client, now, self._rate(client), per_s)
        # Whoever invents a name for each message has not been refused often by any of them.
        if mine and self._everybody.tell(now, _TOGETHER * per_s):
            return True
        self._counters.dropped += 1
        if not self._dropped:
            asyncio.get_running_loop().call_later(_TOLD_EVERY_S, self._tell)
        if mailbox in self._dropped or len(self._dropped) < _TOLD_CLIENTS:
            self._dropped[mailbox] += 1
        return False

    def entering(self, key: JobKey) -> None:
        """A new job is on its way to the disk: it has its place in the queue."""
        self._entering[key] += 1
        self._entering_of[key[1]] += 1

    def entered(self, key: JobKey) -> None:
        """It is among the waiting ones now, or was not stored."""
        count_down(self._entering, key)
        count_down(self._entering_of, key[1])

    def is_entering(self, key: JobKey) -> bool:
        """Return whether a job is on its way to the disk."""
        return key in self._entering

    def _no_place(self, client: str) -> Fault | None:
        limits, waiting = self._limits, self._live.waiting
        if len(waiting) + self._live.held_of(None) + len(self._entering) >= limits.queue_length:
            return Fault(
                Code.QUEUE_FULL,
                f"{limits.queue_length} prompts wait already",
                "Send it again later, with the same id.",
                self._place_in_s(None),
            )
        own = waiting.of_client(client) + self._live.held_of(client) + self._entering_of[client]
        if own >= limits.client_waiting:
            return Fault(
                Code.CLIENT_LIMIT,
                f"{limits.client_waiting} prompts of this client wait already",
                "Wait for answers before you ask more.",
                self._place_in_s(client),
            )
        return None

    def _place_in_s(self, client: str | None) -> float:
        seconds = self._frees_in_s(client)
        return _UNKNOWN_PACE_S if seconds is None else max(0.1, math.ceil(seconds * 10) / 10)

    def _find_rate(self, client: str) -> Rate:
        limits, own = self._limits, self._settings(client)
        per_s = limits.requests_per_s if own.requests_per_s is None else own.requests_per_s
        if own.requests_burst is not None:
            return Rate(per_s, own.requests_burst, own.requests_burst)
        return Rate(per_s, limits.requests_burst, max(limits.requests_burst, limits.requests_burst_alone))

    def _next_in_s(self, client: str) -> float:
        now, rate = self._now(), self._rate(client)
        # Up, or a sender that is as punctual would come just before its token.
        return math.ceil(self._allowances.of(client, now, rate).next_in_s(now, rate.per_s) * 1000) / 1000

    def _tell(self) -> None:
        dropped, self._dropped = self._dropped, Counter()
        for mailbox, count in dropped.items():
            payload = {
                "type": "rate_limited",
                "n": 0,
                "id": None,
                "node": self._node,
                "dropped": count,
                "retry_after_s": self._next_in_s(mailbox.client),
            }
            self._send(Outbound(mailbox.topic("event"), encode(payload), qos=1))
            log.info("requests_dropped", client=mailbox.client, dropped=count)
