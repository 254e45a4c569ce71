"""What goes over the broker: messages in and out, subscriptions, and what became of a publish."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct


class PublishDenied(ValueError):
    """A message may not go to this topic; the caller has a bug, and nothing was sent."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"publishing to {topic!r} is not allowed")
        self.topic = topic


class Inbound(Struct, frozen=True):
    """A PUBLISH that the broker delivered; the MQTT 5 properties are None or empty on 3.1.1."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    """Stored by the broker before we subscribed, not live."""
    dup: bool
    """The broker had sent it before."""
    mid: int
    """Packet identifier; 0 with QoS 0."""
    response_topic: str | None
    correlation_data: bytes | None
    content_type: str | None
    message_expiry_s: int | None
    """Seconds that were left when the broker sent it."""
    user_properties: tuple[tuple[str, str], ...]
    connection: int
    """Number of the network connection it came over, rising; an ack counts on this one only."""
    session: str
    """Token of the broker's session; equal (session, mid, topic, payload) with `dup` is a redelivery."""


class Outbound(Struct, frozen=True):
    """A PUBLISH of ours; the MQTT 5 properties are left out on 3.1.1."""

    topic: str
    payload: bytes
    qos: int = 0
    """0 or 1."""
    retain: bool = False
    correlation_data: bytes | None = None
    content_type: str | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


class PublishOutcome(Enum):
    """What became of a publish."""

    DELIVERED = "delivered"
    """The broker has it (also when nobody subscribes); with QoS 0: it is on its way."""
    REFUSED = "refused"
    """The broker will never take it on this topic: no right to publish, or an invalid topic or payload."""
    RETRY = "retry"
    """Not now: over quota, an unspecified failure, not connected (QoS 0), or the session was closed."""
    TOO_LARGE = "too_large"
    """Above the broker's maximum packet size; it was not sent."""


PUBACK_REFUSALS: Mapping[int, PublishOutcome] = {
    0x80: PublishOutcome.RETRY,  # unspecified error
    0x83: PublishOutcome.RETRY,  # implementation specific error
    0x87: PublishOutcome.REFUSED,  # not authorized
    0x90: PublishOutcome.REFUSED,  # topic name invalid
    0x91: PublishOutcome.RETRY,  # packet identifier in use
    0x97: PublishOutcome.RETRY,  # quota exceeded
    0x99: PublishOutcome.REFUSED,  # payload format invalid
}
"""Every failure that a PUBACK may carry (MQTT 5, section 3.4.2.1)."""


def outcome_of_puback(reason_code: int) -> PublishOutcome:
    """Return what a PUBACK says; 3.1.1 knows only success."""
    if reason_code < 0x80:
        return PublishOutcome.DELIVERED
    return PUBACK_REFUSALS.get(reason_code, PublishOutcome.RETRY)


class Subscription(Struct, frozen=True):
    """A topic filter that we ask for; stored retained messages are not wanted where MQTT 5 lets us say so."""

    topic_filter: str
    qos: int = 1
    """0 or 1. At QoS 2 a message is lost when we die after PUBREC; at QoS 1 it is delivered again."""
    stored: bool = False
    """Stored retained messages are wanted."""

    def __post_init__(self) -> None:
        if self.qos not in (0, 1):
            raise ValueError(f"subscribe at QoS 0 or 1, not {self.qos}")

    @property
    def shared(self) -> bool:
        """Return whether a group of clients shares the messages."""
        return self.topic_filter.startswith("$share/")


class Connection(Struct, frozen=True):
    """What the broker granted, told once all subscriptions are answered."""

    protocol: str
    """`5` or `3.1.1`."""
    session_present: bool
    """The broker kept our session: subscriptions, queued prompts and unacked ones."""
    maximum_packet_bytes: int | None
    """Largest packet the broker takes, headers included; None when it names none."""
    receive_maximum: int
    """QoS 1 messages it takes unacknowledged."""
    shared_subscriptions: bool
    """Whether the broker says that it serves `$share`; False on 3.1.1, which cannot say."""
    refused_subscriptions: tuple[str, ...]
    """Topic filters that the broker did not grant, and shared ones that it does not serve."""
    number: int
    """The `connection` of messages that come over it."""
