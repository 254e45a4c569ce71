"""A TCP proxy that knows where an MQTT packet ends, and can do to a connection what networks do.

Rule 1: what happens to one side happens to the other at once, except on a half-open link, where neither
side learns anything of the other any more.
Rule 2: a fault is for the links that exist when it is asked for; a new connection is a good one.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from enum import StrEnum

from chaos.packets import Kind, Packet, Splitter

_READ_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """Where a packet goes."""

    TO_BROKER = "to broker"
    TO_CLIENT = "to client"


class Link:
    """One client's connection and the proxy's own to the broker."""

    def __init__(
        self,
        number: int,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        broker: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        seen: Callable[["Link", Way, Packet], None],
    ) -> None:
        """Keep the arguments; `seen` hears of each packet before it is forwarded."""
        self.number = number
        self._ends = {Way.TO_BROKER: (client[0], broker[1]), Way.TO_CLIENT: (broker[0], client[1])}
        self._seen = seen
        self.half_open = False
        self.torn = False
        """The next packet is cut in the middle, and the link with it."""
        self.drop: dict[Way, int] = {Way.TO_BROKER: 0, Way.TO_CLIENT: 0}
        """PUBACKs that are still to be swallowed."""
        self.delay_s = 0.0

    async def run(self) -> None:
        """Forward until one side ends; on a half-open link until both have."""
        pumps = {asyncio.create_task(self._pump(way), name=f"pump-{way}") for way in Way}
        try:
            _, left = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self.half_open and left:
                await asyncio.wait(left)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.cut()

    def cut(self) -> None:
        """End both sides with a reset."""
        for _, writer in self._ends.values():
            _reset(writer)

    async def _pump(self, way: Way) -> None:
        reader, writer = self._ends[way]
        splitter = Splitter()
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                packets = splitter.feed(data)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for packet in packets:
                    if not self._forward(way, packet, writer):
                        return
                if not self.half_open:
                    await writer.drain()
        if self.half_open:
            # Only the side that went away knows of it.
            _reset(self._ends[_other(way)][1])

    def _forward(self, way: Way, packet: Packet, writer: asyncio.StreamWriter) -> bool:
        """Forward a packet or do to it what was asked; False when the link has ended by that."""
        if self.half_open:
            return True
        if writer.transport.is_closing():
            return False
        if packet.kind == Kind.PUBACK and self.drop[way]:
            self.drop[way] -= 1
            return True
        self._seen(self, way, packet)
        if self.torn:
            writer.write(packet.raw[: max(1, len(packet.raw) // 2)])
            return False
        writer.write(packet.raw)
        return True


class Proxy:
    """Listens on a port of its own and connects each client to the broker."""

    def __init__(
        self,
        broker_port: int,
        seen: Callable[[Link, Way, Packet], None] = lambda *_: None,
        closed: Callable[[Link], None] = lambda _: None,
    ) -> None:
        """Keep the arguments; `closed` hears when both sides of a link have ended."""
        self._broker_port = broker_port
        self._seen = seen
        self._closed = closed
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._number = 0
        self.port = 0
        self.links: list[Link] = []

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End the links and listen no more."""
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        link = None
        try:
            broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
            self._number += 1
            link = Link(self._number, (reader, writer), broker, self._seen)
            self.links.append(link)
            await link.run()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            _reset(writer)
            self._serving.discard(task)
            if link is not None:
                self.links.remove(link)
                self._closed(link)


def _other(way: Way) -> Way:
    return Way.TO_CLIENT if way is Way.TO_BROKER else Way.TO_BROKER


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
