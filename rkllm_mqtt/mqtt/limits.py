"""What the broker grants in its CONNACK."""

from typing import Self

from msgspec import Struct
from paho.mqtt.properties import Properties

from rkllm_mqtt.mqtt.packets import LARGEST_PACKET_BYTES

RECEIVE_MAXIMUM = 65_535
"""What a broker takes that names no limit."""


class BrokerLimits(Struct, frozen=True):
    """Limits of one connection; the defaults are the protocol's, for a broker that is silent."""

    session_present: bool = False
    maximum_packet_bytes: int | None = None
    """Largest packet, headers included; None when the broker names none."""
    receive_maximum: int = RECEIVE_MAXIMUM
    """QoS 1 messages it takes unacknowledged."""
    shared_subscriptions: bool = False
    """Whether it says that it serves `$share`; 3.1.1 cannot say, and some brokers grant it and are silent."""

    @classmethod
    def of_connack(cls, session_present: bool, properties: Properties | None, *, v5: bool) -> Self:
        """Read a successful CONNACK."""
        if not v5:
            return cls(session_present=session_present)
        maximum = getattr(properties, "MaximumPacketSize", None)
        return cls(
            session_present=session_present,
            maximum_packet_bytes=maximum if isinstance(maximum, int) else None,
            receive_maximum=int(getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM)),
            shared_subscriptions=bool(getattr(properties, "SharedSubscriptionAvailable", 1)),
        )

    def fits(self, packet_bytes: int) -> bool:
        """Return whether the broker takes a packet of this size."""
        return packet_bytes <= (self.maximum_packet_bytes or LARGEST_PACKET_BYTES)
