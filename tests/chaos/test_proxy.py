"""The proxy does to a connection what it is told, between a real broker and a plain client."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from chaos.packets import Kind, Splitter, packet, publish, read_publish
from chaos.proxy import Proxy, Way
from chaos.wire import Wire

PATIENCE_S = 20.0
LONG_S = 600.0


class Heard:
    """Messages, in order."""

    def __init__(self):
        self.payloads = []
        self._came = asyncio.Event()

    def __call__(self, message):
        self.payloads.append(message.payload)
        self._came.set()

    async def until(self, count):
        while len(self.payloads) < count:
            self._came.clear()
            await self._came.wait()
        return self.payloads


@asynccontextmanager
async def through_proxy(broker, seen=lambda *_: None):
    """Yield the proxy, a client behind it, what it hears, and a client that needs no proxy."""
    proxy, heard = Proxy(broker.port, seen), Heard()
    await proxy.start()
    client = await Wire.open(proxy.port, "behind", heard, ("to/behind",), silence_s=LONG_S)
    other_heard = Heard()
    other = await Wire.open(broker.port, "beside", other_heard, ("to/beside",), silence_s=LONG_S)
    try:
        yield proxy, client, heard, other, other_heard
    finally:
        client.close()
        other.close()
        await proxy.close()


@pytest.fixture
def run(own_broker):
    def run(work, **options):
        async def bounded():
            async with asyncio.timeout(PATIENCE_S), through_proxy(own_broker(), **options) as parts:
                await work(*parts)

        asyncio.run(bounded())

    return run


def test_packets_are_cut_at_their_borders_however_the_bytes_come():
    whole = [publish("t", b"x" * size, size) for size in (1, 127, 128, 20_000)] + [packet(0xC0, b"")]
    stream = b"".join(whole)
    for step in (1, 3, 1000, len(stream)):
        splitter = Splitter()
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        found = [packet for piece in pieces for packet in splitter.feed(piece)]
        assert [packet.raw for packet in found] == whole
    assert read_publish(found[1]) == ("t", b"x" * 127, 127, False)
    with pytest.raises(ValueError, match="remaining length"):
        Splitter().feed(b"\x30\xff\xff\xff\xff\xff")


def test_what_nobody_disturbs_arrives_and_is_seen(run):
    seen = []

    async def work(_proxy, client, heard, other, other_heard):
        client.publish("to/beside", b"out")
        other.publish("to/behind", b"in")
        assert await heard.until(1) == [b"in"]
        assert await other_heard.until(1) == [b"out"]
        assert (Way.TO_CLIENT, Kind.SUBACK) in seen
        assert (Way.TO_BROKER, Kind.PUBLISH) in seen

    run(work, seen=lambda _link, way, packet: seen.append((way, packet.kind)))


def test_a_cut_ends_both_sides_at_once(own_broker):
    async def work():
        ended = asyncio.Event()
        proxy = Proxy(own_broker().port, closed=lambda _link: ended.set())
        await proxy.start()
        client = await Wire.open(proxy.port, "c", Heard(), ("x",), silence_s=LONG_S)
        proxy.links[0].cut()
        await client.lost
        await ended.wait()
        assert proxy.links == []
        await proxy.close()

    asyncio.run(asyncio.wait_for(work(), PATIENCE_S))


def test_a_torn_packet_arrives_in_no_part(run):
    async def work(proxy, client, _heard, other, other_heard):
        proxy.links[0].torn = True
        client.publish("to/beside", b"torn")
        await client.lost
        other.publish("to/beside", b"whole")
        assert await other_heard.until(1) == [b"whole"]

    run(work)


def test_a_half_open_link_tells_neither_side_of_the_other(run):
    async def work(proxy, client, heard, other, other_heard):
        link = proxy.links[0]
        link.half_open = True
        client.publish("to/beside", b"swallowed")
        other.publish("to/behind", b"swallowed")
        other.publish("to/beside", b"mark")
        assert await other_heard.until(1) == [b"mark"]
        assert not client.lost.done()
        client.close()
        again = await Wire.open(proxy.port, "again", heard, ("to/behind",), silence_s=LONG_S)
        assert proxy.links[0] is link, "the broker's side is open though the client has gone"
        again.close()

    run(work)


def test_pubacks_are_dropped_in_one_direction_and_counted(run):
    acked = []

    async def work(proxy, client, heard, _other, _other_heard):
        proxy.links[0].drop[Way.TO_CLIENT] = 2
        for _ in range(3):
            client.publish("to/nobody", b"x")
        client.publish("to/behind", b"mark", qos=0)  # behind what the broker has said before
        await heard.until(1)
        assert acked.count(Way.TO_CLIENT) == 1
        assert proxy.links[0].drop == {Way.TO_CLIENT: 0, Way.TO_BROKER: 0}

    run(work, seen=lambda _link, way, packet: acked.append(way) if packet.kind == Kind.PUBACK else None)


def test_a_delayed_link_delivers_later_and_everything(run):
    async def work(proxy, client, _heard, _other, other_heard):
        loop = asyncio.get_running_loop()
        proxy.links[0].delay_s = 0.2
        began = loop.time()
        for number in range(20):
            client.publish("to/beside", b"%d" % number)
        assert await other_heard.until(20) == [b"%d" % number for number in range(20)]
        assert loop.time() - began >= 0.2

    run(work)


def test_a_broker_that_is_away_ends_the_connection(own_broker):
    broker = own_broker()

    async def work():
        proxy = Proxy(broker.port)
        await proxy.start()
        broker.stop()
        with pytest.raises(OSError):  # noqa: PT011 - whatever the system calls it
            await Wire.open(proxy.port, "c", lambda _: None, ("x",))
        await proxy.close()

    asyncio.run(work())
