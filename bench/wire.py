"""A small MQTT 3.1.1 client for load and for clocks: it stamps what arrives before it looks at it.

It does only what the bench needs, so that broker, daemon and worker keep the two cores for themselves: a
message costs about 2 microseconds, and while it holds, packets are only kept and counted later.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

HOST = "127.0.0.1"
LIMIT_S = 20.0
"""Longest wait for an answer of the broker; a loopback that takes longer is broken."""

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_KEEPALIVE_S = 600


class Message(NamedTuple):
    """A message as it arrived."""

    at_ns: int
    """When its bytes were read from the socket; CLOCK_MONOTONIC, as the library's log."""
    topic: str
    payload: bytes
    retained: bool


class Wire(asyncio.Protocol):
    """One connection; open it with `Wire.open`."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._mid = 0
        self._answers: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._held: list[tuple[int, bytes]] = []
        self._mark: bytes | None = None
        self._marked: asyncio.Future[None] = loop.create_future()
        self._closing = False
        self.lost: asyncio.Future[None] = loop.create_future()
        """Resolves when the connection is gone."""

    @classmethod
    async def open(cls, port: int, name: str, on_message: Callable[[Message], None]) -> "Wire":
        """Connect with a clean session.

        Raises:
            ConnectionError: The broker is not there, refuses, or says nothing for 20 s.
        """
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: cls(on_message), HOST, port)
        client = name.encode()
        body = b"\x00\x04MQTT\x04\x02" + _KEEPALIVE_S.to_bytes(2, "big") + _counted(client)
        connack = wire._expect(_CONNACK, 0)  # noqa: SLF001 - its own class
        wire._write(_packet(0x10, body))  # noqa: SLF001 - its own class
        if (await wire._answer(connack))[1]:  # noqa: SLF001 - its own class
            raise ConnectionError("the broker refused the connection")
        return wire

    async def subscribe(self, filters: Iterable[str], qos: int = 1) -> None:
        """Subscribe and wait for the broker's consent.

        Raises:
            ConnectionError: It refuses, or says nothing.
        """
        mid = self._next_mid()
        body = mid.to_bytes(2, "big") + b"".join(_counted(f.encode()) + bytes((qos,)) for f in filters)
        suback = self._expect(_SUBACK, mid)
        self._write(_packet(0x82, body))
        if any(code & 0x80 for code in (await self._answer(suback))[2:]):
            raise ConnectionError("the broker refused a subscription")

    def publish(self, messages: Sequence[tuple[str, bytes]], qos: int = 1) -> int:
        """Write messages in one piece; return the time just before, nanoseconds of CLOCK_MONOTONIC."""
        packets = []
        for topic, payload in messages:
            mid = self._next_mid().to_bytes(2, "big") if qos else b""
            packets.append(_packet(0x30 | qos << 1, _counted(topic.encode()) + mid + payload))
        data = b"".join(packets)
        at_ns = time.monotonic_ns()
        self._write(data)
        return at_ns

    def hold(self, mark: bytes) -> "asyncio.Future[None]":
        """Keep what arrives without looking at it, until bytes hold `mark`; the future then resolves.

        Call `release` afterwards.
        """
        self._mark = mark
        self._marked = asyncio.get_running_loop().create_future()
        return self._marked

    def release(self) -> None:
        """Look at what was held, with the times at which it arrived."""
        self._mark = None
        held, self._held = self._held, []
        for at_ns, data in held:
            self._read(at_ns, data)

    async def close(self) -> None:
        """Disconnect and wait until the socket is closed."""
        self._closing = True
        if self._transport is not None:
            self._write(b"\xe0\x00")
            self._transport.close()
            await asyncio.wait({self.lost}, timeout=LIMIT_S)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio has set TCP_NODELAY."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Stamp, then read or hold."""
        at_ns = time.monotonic_ns()
        if self._mark is None:
            self._read(at_ns, data)
            return
        # A mark on the border of two reads would be missed: the end of the last piece is looked at again.
        tail = self._held[-1][1][-len(self._mark) :] if self._held else b""
        self._held.append((at_ns, data))
        if self._mark in tail + data and not self._marked.done():
            self._marked.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever waits, unless we left on purpose."""
        error = exc or ConnectionError("the broker closed the connection")
        if not self.lost.done():
            self.lost.set_result(None)
        waiting: list[asyncio.Future[Any]] = [*self._answers.values(), self._marked]
        for future in waiting:
            if not future.done() and not self._closing:
                future.set_exception(error)
                future.exception()  # whoever waits gets it; nobody may be waiting

    def _read(self, at_ns: int, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at, end, acks = 0, len(data), []
        while True:
            start = at + 1
            length = shift = 0
            while start < end:
                byte = data[start]
                start += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            else:
                break
            if start + length > end:
                break
            first, kind = data[at], data[at] >> 4
            if kind == _PUBLISH:
                topic_end = start + 2 + (data[start] << 8 | data[start + 1])
                body = topic_end
                if first & 0x06:
                    body += 2
                    acks.append(b"\x40\x02" + data[topic_end:body])
                self._on_message(
                    Message(
                        at_ns,
                        data[start + 2 : topic_end].decode(),
                        data[body : start + length],
                        first & 1 == 1,
                    )
                )
            elif kind in (_CONNACK, _SUBACK):
                mid = 0 if kind == _CONNACK else int.from_bytes(data[start : start + 2], "big")
                answer = self._answers.pop((kind, mid), None)
                if answer is not None and not answer.done():
                    answer.set_result(data[start : start + length])
            at = start + length
        self._rest = data[at:]
        if acks:
            self._write(b"".join(acks))

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("not connected")
        self._transport.write(data)

    def _next_mid(self) -> int:
        self._mid = self._mid % 65_535 + 1
        return self._mid

    def _expect(self, kind: int, mid: int) -> "asyncio.Future[bytes]":
        return self._answers.setdefault((kind, mid), asyncio.get_running_loop().create_future())

    async def _answer(self, future: "asyncio.Future[bytes]") -> bytes:
        try:
            return await asyncio.wait_for(future, LIMIT_S)
        except TimeoutError as exc:
            raise ConnectionError(f"the broker said nothing for {LIMIT_S:g} s") from exc


def _counted(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _packet(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray((first,))
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + body
