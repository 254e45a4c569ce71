"""MQTT packets as bytes: split a stream at their borders, and build what a plain 3.1.1 client says."""

from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """Packet types."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Packet(NamedTuple):
    """One whole packet."""

    kind: int
    flags: int
    body: bytes
    """What follows the remaining length."""
    raw: bytes


class Splitter:
    """Cuts a stream into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that are complete now.

        Raises:
            ValueError: This is not MQTT.
        """
        self._rest += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
            self._rest = self._rest[len(packet.raw) :]
        return packets

    def _next(self) -> Packet | None:
        length = shift = 0
        for at, byte in enumerate(self._rest[1:5], 1):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                end = at + 1 + length
                if len(self._rest) < end:
                    return None
                raw = self._rest[:end]
                return Packet(raw[0] >> 4, raw[0] & 0x0F, raw[at + 1 :], raw)
        if len(self._rest) >= 5:
            raise ValueError("a remaining length of more than four bytes")
        return None


def packet(first: int, body: bytes) -> bytes:
    """Return a packet with its first byte and its body."""
    length, digits = len(body), bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        digits.append(digit | 0x80 if length else digit)
        if not length:
            return bytes((first, *digits)) + body


def counted(data: bytes) -> bytes:
    """Return a string of MQTT: two bytes of length, then the bytes."""
    return len(data).to_bytes(2, "big") + data


def connect(client_id: str, keepalive_s: int) -> bytes:
    """Return CONNECT of MQTT 3.1.1 with a clean session."""
    body = counted(b"MQTT") + b"\x04\x02" + keepalive_s.to_bytes(2, "big") + counted(client_id.encode())
    return packet(Kind.CONNECT << 4, body)


def publish(topic: str, payload: bytes, mid: int, *, dup: bool = False) -> bytes:
    """Return PUBLISH; `mid` 0 is QoS 0, else QoS 1."""
    flags = (2 if mid else 0) | (8 if dup else 0)
    return packet(
        Kind.PUBLISH << 4 | flags,
        counted(topic.encode()) + (mid.to_bytes(2, "big") if mid else b"") + payload,
    )


def puback(mid: int) -> bytes:
    """Return PUBACK."""
    return packet(Kind.PUBACK << 4, mid.to_bytes(2, "big"))


def subscribe(mid: int, filters: tuple[str, ...]) -> bytes:
    """Return SUBSCRIBE at QoS 1."""
    wanted = b"".join(counted(name.encode()) + b"\x01" for name in filters)
    return packet(Kind.SUBSCRIBE << 4 | 2, mid.to_bytes(2, "big") + wanted)


class Publication(NamedTuple):
    """A PUBLISH of MQTT 3.1.1, read."""

    topic: str
    payload: bytes
    mid: int
    """0 at QoS 0."""
    retain: bool


def read_publish(received: Packet) -> Publication:
    """Return what a PUBLISH says."""
    end = 2 + int.from_bytes(received.body[:2], "big")
    topic = received.body[2:end].decode()
    mid = 0
    if received.flags & 6:
        mid, end = int.from_bytes(received.body[end : end + 2], "big"), end + 2
    return Publication(topic, received.body[end:], mid, bool(received.flags & 1))
