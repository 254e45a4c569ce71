"""The order of our PUBACKs on one connection.

MQTT wants acknowledgements in the order of receipt; the journal commits in whatever order it likes.

Rule 1: a message is known by itself, not by its packet identifier: the broker uses identifiers again, and a
late or second ack must not acknowledge the message that has the number now.
Rule 2: an ack does not overtake what was published before it was given: a rejection leaves before the PUBACK
of its request, else a crash in between would lose both.
"""

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from rkllm_mqtt.mqtt.messages import Inbound


class _Unacked(Struct):
    inbound: Inbound
    fence: int | None = None
    """Publishes with a lower ordinal have to be on their way first; None: not acknowledged yet."""


class AckQueue:
    """Messages of one connection between receipt and PUBACK."""

    def __init__(self) -> None:
        self._order: deque[_Unacked] = deque()
        self._by_mid: dict[int, _Unacked] = {}

    def __len__(self) -> int:
        return len(self._order)

    def received(self, inbound: Inbound) -> None:
        """Note a message with QoS above 0, in the order of arrival.

        A repeat on the same connection takes the place of the first, so either is acknowledged once.
        """
        known = self._by_mid.get(inbound.mid)
        if known is not None:
            known.inbound = inbound
            return
        entry = _Unacked(inbound)
        self._order.append(entry)
        self._by_mid[inbound.mid] = entry

    def acknowledge(self, inbound: Inbound, fence: int = 0) -> bool:
        """Note that this message is safe with us; return False for one of another connection or acked before.

        Args:
            inbound: The very object that was passed to `received`.
            fence: Ordinal of the next publish: what was published so far goes first.
        """
        entry = self._by_mid.get(inbound.mid)
        if entry is None or entry.inbound is not inbound or entry.fence is not None:
            return False
        entry.fence = fence
        return True

    def release(self, published: int) -> Iterator[Inbound]:
        """Yield the messages whose PUBACK is due now, in order of receipt.

        Args:
            published: All publishes with a lower ordinal are on their way.
        """
        order = self._order
        while order and order[0].fence is not None and order[0].fence <= published:
            inbound = order.popleft().inbound
            del self._by_mid[inbound.mid]
            yield inbound
