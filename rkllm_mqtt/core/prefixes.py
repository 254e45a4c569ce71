"""Registered prefixes: beginnings of prompts that clients come back to, and how useful each is to have ready.

Pure. A prefix is a system prompt with its tools, or the messages that every question of a client begins with.

Rule 1: who registers the same again changes nothing but its life; who registers another under the same name
    replaces it, and it is computed only after a pause, for changes come in swarms.
Rule 2: per client and in all they are bounded; the one that nobody used for longest goes.
"""

import json
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from rkllm_mqtt.core.chat import ChatRequest

PAUSE_S = 2.0
"""A prefix that has changed is left alone for so long: its client may still be changing it."""
_HOURS = 24
_KEPT = 0.8
"""Of a day's count of uses, so much is left a day later: about a week is remembered."""
_UNKNOWN_PER_HOUR = 1.0
"""Uses expected of a prefix in its first day."""

Change = Literal["registered", "unchanged", "removed", "absent"]


class Uses(Struct):
    """How often a prefix is used, by hour of the day."""

    hours: list[float] = field(default_factory=lambda: [0.0] * _HOURS)
    """Uses of the last days, old days for less."""
    days: float = 0.0
    """Days that these uses come from, old ones for less."""
    day: int = -1
    """The last one counted; -1 before the first use or look."""

    def count(self, day: int, hour: int) -> None:
        """Take a use; `day` rises with the calendar, `hour` is 0 to 23."""
        self._pass(day)
        self.hours[hour] += 1

    def per_hour(self, day: int, hour: int, minute: float = 0.0) -> float:
        """Return the uses expected in the sixty minutes from now."""
        self._pass(day)
        if self.days <= 0:
            return max(_UNKNOWN_PER_HOUR, sum(self.hours))
        share = minute / 60
        now, later = self.hours[hour % _HOURS], self.hours[(hour + 1) % _HOURS]
        return ((1 - share) * now + share * later) / (self.days + 1)

    def _pass(self, day: int) -> None:
        """Let the days pass; a clock that was set back passes none."""
        if self.day < 0 or day < self.day - 1:
            self.day = day
        for _ in range(min(60, day - self.day)):
            self.hours = [count * _KEPT for count in self.hours]
            self.days = (self.days + 1) * _KEPT
        self.day = max(self.day, day)

    def to_json(self) -> str:
        """Return what the journal keeps."""
        hours = [round(count, 3) for count in self.hours]
        return json.dumps([hours, round(self.days, 3), self.day], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Uses":
        """Take what the journal kept; what is not of its kind counts nothing."""
        try:
            hours, days, day = json.loads(text)
            if len(hours) != _HOURS:
                return cls()
            return cls([float(count) for count in hours], float(days), int(day))
        except (ValueError, TypeError):
            return cls()


class Prefix(Struct, eq=False):
    """A registered prefix. Identity counts, not value."""

    client: str
    name: str
    request: ChatRequest
    """Its messages and tools, for its model; nothing else of it counts."""
    ttl_s: float
    """Neither registered anew nor used for so long, it is forgotten."""
    used_at: float
    """Seconds of the journal clock: the last registration or use."""
    uses: Uses = field(default_factory=Uses)
    changed_at: float = float("-inf")
    """Seconds of the journal clock; when it became what it is, in this process."""

    @property
    def key(self) -> tuple[str, str]:
        """Return client and name."""
        return self.client, self.name

    def is_expired(self, now: float) -> bool:
        """Return whether its life is over."""
        return now >= self.used_at + self.ttl_s

    def is_same(self, request: ChatRequest) -> bool:
        """Return whether a request asks for the same beginning."""
        mine = self.request
        return (mine.messages, mine.tools, mine.model, mine.lora) == (
            request.messages,
            request.tools,
            request.model,
            request.lora,
        )


class Prefixes(Struct):
    """All registered prefixes."""

    most: int = 64
    most_of_client: int = 2
    _by_key: dict[tuple[str, str], Prefix] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Prefix]:
        return iter(self._by_key.values())

    def find(self, client: str, name: str) -> Prefix | None:
        """Return a client's prefix."""
        return self._by_key.get((client, name))

    def has_room(self, client: str, name: str) -> bool:
        """Return whether a client may register a prefix of this name."""
        own = [prefix.name for prefix in self if prefix.client == client]
        return name in own or len(own) < self.most_of_client

    def register(
        self, client: str, name: str, request: ChatRequest, ttl_s: float, now: float
    ) -> tuple[Prefix, Change, list[Prefix]]:
        """Take a prefix; return it, what that changed, and the prefixes that had to go for it.

        Args:
            client: Who registers, and has room for it.
            name: Replaces the prefix of the same name.
            request: Its messages, tools and model.
            ttl_s: Its life beyond its last use, seconds.
            now: Seconds of the journal clock.
        """
        old = self.find(client, name)
        if old is not None and old.is_same(request):
            old.ttl_s, old.used_at = ttl_s, now
            return old, "unchanged", []
        new = Prefix(client, name, request, ttl_s, now, changed_at=now)
        if old is not None:
            new.uses = old.uses  # it is asked for as often as the one before it
        self._by_key[new.key] = new
        gone = sorted(self, key=lambda prefix: prefix.used_at)[: max(0, len(self) - self.most)]
        for prefix in gone:
            del self._by_key[prefix.key]
        return new, "registered", gone

    def restore(self, prefix: Prefix) -> None:
        """Take up one that an earlier process kept."""
        self._by_key[prefix.key] = prefix

    def remove(self, client: str, name: str) -> Change:
        """Forget a prefix."""
        return "absent" if self._by_key.pop((client, name), None) is None else "removed"

    def expire(self, now: float) -> list[Prefix]:
        """Forget those whose life is over; return them."""
        gone = [prefix for prefix in self if prefix.is_expired(now)]
        for prefix in gone:
            del self._by_key[prefix.key]
        return gone


def worth_s(prefix: Prefix, saving_s: float, *, day: int, hour: int, minute: float) -> float:
    """Return what having a prefix ready is expected to save within an hour, seconds.

    Args:
        prefix: Which would be made ready.
        saving_s: Time to the first token that it saves its next use.
        day: Number of the calendar's day.
        hour: Of that day, 0 to 23.
        minute: Of that hour.
    """
    return min(1.0, prefix.uses.per_hour(day, hour, minute)) * max(0.0, saving_s)
