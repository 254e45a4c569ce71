"""PUBLISH packets of ours as bytes: exact sizes, and the short way for QoS 0.

Rule 1: a size is exact, for a packet above the broker's maximum costs the whole connection.
Rule 2: paho builds and tracks QoS 1; only QoS 0, which needs no bookkeeping, is written here, because it is
sent for every token (2 microseconds instead of paho's 20).
"""

from collections.abc import Callable

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from rkllm_mqtt.mqtt.messages import Outbound

LARGEST_PACKET_BYTES = 268_435_460
"""What four length bytes can say, and the header: the limit where the broker names none."""

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
DISCONNECT_WITH_WILL = b"\xe0\x01\x04"
"""MQTT 5 only: end the connection, but publish the will."""

_CONTENT_TYPE = b"\x03"
_CORRELATION_DATA = b"\x09"
_USER_PROPERTY = b"\x26"


def variable_length(value: int) -> bytes:
    """Return a variable byte integer, 1 to 4 bytes (MQTT 5, section 1.5.5)."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def publish_properties(message: Outbound) -> bytes:
    """Return the property part of an MQTT 5 PUBLISH, its length in front.

    Raises:
        OverflowError: A value is longer than 65,535 bytes.
        ValueError: A text holds NUL or half a surrogate pair, for which a broker closes the connection.
    """
    if message.content_type is None and message.correlation_data is None and not message.user_properties:
        return b"\x00"
    parts: list[bytes] = []
    if message.content_type is not None:
        parts += (_CONTENT_TYPE, _text(message.content_type))
    if message.correlation_data is not None:
        parts += (_CORRELATION_DATA, _counted(message.correlation_data))
    for name, value in message.user_properties:
        parts += (_USER_PROPERTY, _text(name), _text(value))
    body = b"".join(parts)
    return variable_length(len(body)) + body


def qos0_publish(message: Outbound, *, v5: bool) -> bytes:
    """Return a whole QoS 0 PUBLISH packet."""
    topic = message.topic.encode()
    properties = publish_properties(message) if v5 else b""
    remaining = 2 + len(topic) + len(properties) + len(message.payload)
    return b"".join(
        (
            b"\x31" if message.retain else b"\x30",
            variable_length(remaining),
            len(topic).to_bytes(2, "big"),
            topic,
            properties,
            message.payload,
        )
    )


def publish_bytes(message: Outbound, *, v5: bool) -> int:
    """Return the exact size of a PUBLISH packet, fixed header included."""
    properties = len(publish_properties(message)) if v5 else 0
    packet_identifier = 2 if message.qos else 0
    remaining = 2 + len(message.topic.encode()) + packet_identifier + properties + len(message.payload)
    return 1 + len(variable_length(remaining)) + remaining


def new_properties(packet_type: int) -> Properties:
    """Return empty properties in paho's form; its constructor has no types."""
    constructor: Callable[[int], Properties] = Properties
    return constructor(packet_type)


def paho_properties(message: Outbound, *, will_delay_s: int | None = None) -> Properties | None:
    """Return the same properties in paho's form, or None when there are none.

    Args:
        message: Whose properties.
        will_delay_s: The message is the will, published so many seconds after we are gone.
    """
    bare = message.content_type is None and message.correlation_data is None and not message.user_properties
    if bare and will_delay_s is None:
        return None
    packed = new_properties(PacketTypes.PUBLISH if will_delay_s is None else PacketTypes.WILLMESSAGE)
    if will_delay_s is not None:
        packed.WillDelayInterval = will_delay_s
    if message.content_type is not None:
        packed.ContentType = message.content_type
    if message.correlation_data is not None:
        packed.CorrelationData = message.correlation_data
    if message.user_properties:
        packed.UserProperty = list(message.user_properties)
    return packed


def _counted(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("a property may not hold NUL")
    return _counted(value.encode())
