"""Our QoS 1 messages between `publish` and PUBACK: a queue in order, and a window of those under way.

Pure: no socket, no clock. paho's own limit is switched off, because it ignores the broker's ReceiveMaximum.

Rule 1: a future is resolved once, whatever becomes of connection and session.
Rule 2: at most `limit` messages are under way; the others wait in the order of `submit`.
Rule 3: a message that costs the connection each time it is sent is given up. To find it among others, each is
sent alone once connections have ended right behind what was sent.
"""

import asyncio
from collections import deque

from msgspec import Struct

from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome

POISON_S = 2.0
"""A connection that ends so soon after a message, which has no PUBACK, may have ended because of it."""

SUSPICIOUS_LOSSES = 2
"""So many such losses in a row, and each message is sent alone."""

STRIKES = 3
"""So many such losses in a row with one message alone under way, and it is given up."""


class Pending(Struct):
    """A message that waits for its outcome."""

    ordinal: int
    """Position among all messages ever submitted, from 0."""
    message: Outbound
    outcome: asyncio.Future[PublishOutcome]
    sent_at: float = 0.0
    """When it was sent last; seconds of the caller's clock."""
    strikes: int = 0
    """Connections in a row that ended right after it, while nothing else was under way."""

    def resolve(self, outcome: PublishOutcome) -> None:
        """Tell the publisher, unless it has turned away."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Window:
    """QoS 1 messages of one session."""

    def __init__(self, limit: int) -> None:
        self._granted = limit
        self._suspicious_losses = 0
        self.gave_up = False
        """A message was given up that the client underneath still holds; `send_again` clears it."""
        self._waiting: deque[Pending] = deque()
        self._under_way: dict[int, Pending] = {}
        self._next_ordinal = 0

    @property
    def limit(self) -> int:
        """Return how many messages may be under way."""
        return 1 if self._suspicious_losses >= SUSPICIOUS_LOSSES else self._granted

    @limit.setter
    def limit(self, granted: int) -> None:
        """Set what the broker grants; with every CONNACK."""
        self._granted = granted

    @property
    def waiting(self) -> int:
        """Return how many messages have not been sent."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Return how many messages were sent and not acknowledged."""
        return len(self._under_way)

    @property
    def submitted(self) -> int:
        """Return the ordinal that the next message will get."""
        return self._next_ordinal

    @property
    def published(self) -> int:
        """Return the ordinal below which every message has been sent at least once, or was given up."""
        return self._waiting[0].ordinal if self._waiting else self._next_ordinal

    @property
    def messages_under_way(self) -> list[Outbound]:
        """Return the messages that were sent and not acknowledged, in no particular order."""
        return [pending.message for pending in self._under_way.values()]

    def submit(self, message: Outbound, outcome: asyncio.Future[PublishOutcome]) -> None:
        """Put a message at the end of the queue."""
        self._waiting.append(Pending(self._next_ordinal, message, outcome))
        self._next_ordinal += 1

    def next(self) -> Pending | None:
        """Take the next message to send; None when there is none or the window is full.

        One whose publisher has cancelled the future is dropped: it was never sent.
        """
        while self._waiting and len(self._under_way) < self.limit:
            pending = self._waiting.popleft()
            if not pending.outcome.done():
                return pending
        return None

    def sent(self, mid: int, pending: Pending, now: float = 0.0) -> None:
        """Note the packet identifier under which the PUBACK will come, and when it was sent."""
        pending.sent_at = now
        self._under_way[mid] = pending

    def repeated(self, now: float) -> None:
        """Note that what is under way was sent once more, over a new connection to the same session."""
        for pending in self._under_way.values():
            pending.sent_at = now

    def lost(self, now: float) -> Outbound | None:
        """Note that the connection has ended; return the message that was given up for it, if one was."""
        suspects = [pending for pending in self._under_way.values() if now - pending.sent_at <= POISON_S]
        if not suspects:
            for pending in self._under_way.values():
                pending.strikes = 0
            self.steady()
            return None
        self._suspicious_losses += 1
        if len(self._under_way) > 1:
            return None
        ((mid, suspect),) = self._under_way.items()
        suspect.strikes += 1
        if suspect.strikes < STRIKES:
            return None
        del self._under_way[mid]
        suspect.resolve(PublishOutcome.REFUSED)
        self.gave_up = True
        self.steady()
        return suspect.message

    def steady(self) -> None:
        """Suspect nothing any more: the connection lasts, or ended for another reason."""
        self._suspicious_losses = 0

    def settle(self, mid: int, outcome: PublishOutcome) -> str | None:
        """Resolve the message that a PUBACK names and return its topic; None for an unknown identifier."""
        pending = self._under_way.pop(mid, None)
        if pending is None:
            return None
        pending.resolve(outcome)
        return pending.message.topic

    def send_again(self) -> None:
        """Put what is under way back in front of the queue: the broker has forgotten the session."""
        again = sorted(self._under_way.values(), key=lambda pending: pending.ordinal)
        self._waiting.extendleft(reversed(again))
        self._under_way.clear()
        self.gave_up = False

    def abandon(self) -> None:
        """Resolve everything with RETRY: there will be no further connection."""
        self.send_again()
        while self._waiting:
            self._waiting.popleft().resolve(PublishOutcome.RETRY)
