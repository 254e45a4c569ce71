"""A plain MQTT 3.1.1 client of ours, for senders and observers: connects once, and says when it is lost."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from chaos.packets import (
    Kind,
    Publication,
    Splitter,
    connect,
    packet,
    puback,
    publish,
    read_publish,
    subscribe,
)

ANSWER_S = 5.0
"""Longest wait for the broker's word."""


class Wire(asyncio.Protocol):
    """One connection; open it with `Wire.open`."""

    def __init__(self, on_message: Callable[[Publication], None], silence_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._on_message = on_message
        self._silence_s = silence_s
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._mid = 0
        self._heard_at = loop.time()
        self._pinger: asyncio.TimerHandle | None = None
        self._connack: asyncio.Future[None] = loop.create_future()
        self._suback: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        """Resolves when the connection is gone, or has said nothing for too long."""

    @classmethod
    async def open(
        cls,
        port: int,
        client_id: str,
        on_message: Callable[[Publication], None],
        filters: tuple[str, ...],
        *,
        silence_s: float = 3.0,
    ) -> "Wire":
        """Connect and subscribe.

        Raises:
            OSError: The broker is not there, or does not answer.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(ANSWER_S):
            _, wire = await loop.create_connection(lambda: cls(on_message, silence_s), "127.0.0.1", port)
            try:
                await wire._greet(client_id, filters)
            except BaseException:
                wire.close()
                raise
        return wire

    async def _greet(self, client_id: str, filters: tuple[str, ...]) -> None:
        self._write(connect(client_id, max(2, int(self._silence_s))))
        await self._unless_lost(self._connack)
        self._write(subscribe(self._next_mid(), filters))
        await self._unless_lost(self._suback)
        self._ping()

    async def _unless_lost(self, answer: "asyncio.Future[None]") -> None:
        await asyncio.wait({answer, self.lost}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionResetError("the broker closed the connection")

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish; whether it arrived is told by nobody but its receiver."""
        self._write(publish(topic, payload, self._next_mid() if qos else 0))

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(packet(Kind.DISCONNECT << 4, b""))
            self._transport.close()
        self._lose()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio has set TCP_NODELAY."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read packets."""
        self._heard_at = self._loop.time()
        for received in self._splitter.feed(data):
            match received.kind:
                case Kind.CONNACK if not received.body[1] and not self._connack.done():
                    self._connack.set_result(None)
                case Kind.SUBACK if not self._suback.done():
                    self._suback.set_result(None)
                case Kind.PUBLISH:
                    message = read_publish(received)
                    if message.mid:
                        self._write(puback(message.mid))
                    self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """The broker is gone."""
        self._lose()

    def _ping(self) -> None:
        if self.lost.done():
            return
        if self._loop.time() - self._heard_at > self._silence_s:
            if self._transport is not None:
                self._transport.abort()
            self._lose()
            return
        self._write(packet(Kind.PINGREQ << 4, b""))
        self._pinger = self._loop.call_later(self._silence_s / 3, self._ping)

    def _lose(self) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _next_mid(self) -> int:
        self._mid = self._mid % 65_535 + 1
        return self._mid


async def look(port: int, client_id: str, topic_filter: str, within_s: float) -> dict[str, bytes]:
    """Return the retained messages that a new subscriber is given within a time, by topic.

    Raises:
        OSError: The broker is not there, or does not answer.
    """
    found: dict[str, bytes] = {}

    def take(message: Publication) -> None:
        if message.retain:
            found[message.topic] = message.payload

    wire = await Wire.open(port, client_id, take, (topic_filter,))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(wire.lost), within_s)
    wire.close()
    return found


def now() -> float:
    """Return seconds of CLOCK_MONOTONIC, the clock of everything that is recorded."""
    return time.monotonic()
