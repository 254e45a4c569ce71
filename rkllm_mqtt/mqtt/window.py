"""Our QoS 1 messages between `publish` and PUBACK: a queue in order, and a window of those under way.

Pure: no socket, no clock. paho's own limit is switched off, because it ignores the broker's ReceiveMaximum.

Rule 1: a future is resolved once, whatever becomes of connection and session.
Rule 2: at most `limit` messages are under way; the others wait in the order of `submit`.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome


@dataclass(slots=True)
class Pending:
    """A message that waits for its outcome."""

    ordinal: int
    """Position among all messages ever submitted, from 0."""
    message: Outbound
    outcome: asyncio.Future[PublishOutcome] = field(repr=False)

    def resolve(self, outcome: PublishOutcome) -> None:
        """Tell the publisher, unless it has turned away."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Window:
    """QoS 1 messages of one session."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Messages under way at most; set anew with every CONNACK."""
        self._waiting: deque[Pending] = deque()
        self._under_way: dict[int, Pending] = {}
        self._next_ordinal = 0

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

    def sent(self, mid: int, pending: Pending) -> None:
        """Note the packet identifier under which the PUBACK will come."""
        self._under_way[mid] = pending

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

    def abandon(self) -> None:
        """Resolve everything with RETRY: there will be no further connection."""
        self.send_again()
        while self._waiting:
            self._waiting.popleft().resolve(PublishOutcome.RETRY)
