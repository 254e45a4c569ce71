"""Read a PUBLISH that the broker delivered.

paho's own reader ends the connection over a property that holds U+FEFF, which MQTT allows and mosquitto
passes on. The message comes again after the reconnect, and again: one sender could shut everybody out for
good. Reading it here also takes a fourth of the time.

Rule 1: what any client can put into a message never costs the connection. A topic or a property that cannot
be read makes a message with an empty topic, to be acknowledged and dropped.
Rule 2: what only a broken broker can do (a packet that ends too early, QoS 2 that nobody asked for) does.
"""

from paho.mqtt.exception import MalformedPacket

from rkllm_mqtt.mqtt.messages import Inbound

_FIXED_SIZES = {0x01: 1, 0x23: 2}  # payload format indicator, topic alias: of no interest here
_EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION, _IDENTIFIER, _USER = 0x02, 0x03, 0x08, 0x09, 0x0B, 0x26


class _Cursor:
    """A position in a packet; reading past the end is an error."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def take(self, count: int) -> bytes:
        piece = self.body[self.at : self.at + count]
        if len(piece) < count:
            raise MalformedPacket("a PUBLISH ends too early")
        self.at += count
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def counted(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        # Replaced, not refused: a response topic that is no topic has to be denied, not overlooked; and what
        # we echo must be fit to be sent.
        return self.counted().decode(errors="replace").replace("\0", "\ufffd")

    def variable(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedPacket("a length has more than four bytes")


class _Properties:
    """Those of a PUBLISH that mean something to us."""

    def __init__(self) -> None:
        self.response_topic: str | None = None
        self.correlation_data: bytes | None = None
        self.content_type: str | None = None
        self.message_expiry_s: int | None = None
        self.user: list[tuple[str, str]] = []

    def read(self, cursor: _Cursor) -> None:
        """Take in all properties.

        Raises:
            MalformedPacket: One is unknown, or longer than the rest.
        """
        while cursor.at < len(cursor.body):
            kind = cursor.number(1)
            if kind == _USER:
                self.user.append((cursor.text(), cursor.text()))
            elif kind == _CORRELATION:
                self.correlation_data = cursor.counted()
            elif kind == _RESPONSE_TOPIC:
                self.response_topic = cursor.text()
            elif kind == _CONTENT_TYPE:
                self.content_type = cursor.text()
            elif kind == _EXPIRY:
                self.message_expiry_s = cursor.number(4)
            elif kind == _IDENTIFIER:
                cursor.variable()
            elif kind in _FIXED_SIZES:
                cursor.take(_FIXED_SIZES[kind])
            else:
                raise MalformedPacket(f"a PUBLISH has the unknown property {kind}")


def read_publish(first: int, body: bytes, *, v5: bool, connection: int, session: str) -> Inbound:
    """Return a message from the first byte of its packet and what follows the fixed header.

    Raises:
        MalformedPacket: The broker is broken; nothing can be acknowledged.
    """
    qos = first >> 1 & 0x03
    if qos > 1:
        raise MalformedPacket(f"the broker sent QoS {qos}, we never ask for more than 1")
    cursor = _Cursor(body)
    raw_topic = cursor.counted()
    mid = cursor.number(2) if qos else 0
    raw_properties = cursor.take(cursor.variable()) if v5 else b""
    properties = _Properties()
    try:
        topic = raw_topic.decode()
        if raw_properties:
            properties.read(_Cursor(raw_properties))
    except (UnicodeDecodeError, MalformedPacket):
        topic = ""
    return Inbound(
        topic=topic,
        payload=body[cursor.at :],
        qos=qos,
        retain=bool(first & 0x01),
        dup=bool(first & 0x08),
        mid=mid,
        response_topic=properties.response_topic,
        correlation_data=properties.correlation_data,
        content_type=properties.content_type,
        message_expiry_s=properties.message_expiry_s,
        user_properties=tuple(properties.user),
        connection=connection,
        session=session,
    )
