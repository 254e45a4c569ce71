"""The load client says and stamps what really went over the wire."""

import asyncio
import time

import pytest

from bench.wire import Wire


class Inbox:
    """Keeps messages and can wait for a number of them."""

    def __init__(self):
        self.messages = []
        self._came = asyncio.Event()

    def take(self, message):
        self.messages.append(message)
        self._came.set()

    async def wait(self, count):
        while len(self.messages) < count:
            self._came.clear()
            await self._came.wait()
        return self.messages


def test_messages_of_every_size_arrive_once_and_in_order(on_broker):
    sizes = [0, 1, 127, 128, 16_383, 16_384, 300_000, 5]

    async def work(port):
        inbox = Inbox()
        reader = await Wire.open(port, "reader", inbox.take)
        await reader.subscribe(["t/+"])
        writer = await Wire.open(port, "writer", lambda _: None)
        asked_ns = writer.publish([(f"t/{n}", b"x" * size) for n, size in enumerate(sizes)])
        got = await inbox.wait(len(sizes))
        await reader.close()
        await writer.close()
        return asked_ns, list(got)

    asked_ns, got = on_broker(work)
    assert [(one.topic, len(one.payload)) for one in got] == [
        (f"t/{n}", size) for n, size in enumerate(sizes)
    ]
    assert all(asked_ns < one.at_ns < time.monotonic_ns() for one in got)
    assert not any(one.retained for one in got)


def test_what_is_acknowledged_is_not_sent_again_and_the_flow_never_stops(on_broker):
    async def work(port):
        inbox = Inbox()
        wire = await Wire.open(port, "both", inbox.take)
        await wire.subscribe(["t"])
        for _ in range(5):  # beyond the 100 that the broker has under way without an answer
            wire.publish([("t", b"%d" % n) for n in range(100)])
        got = list(await inbox.wait(500))
        await wire.close()
        return got

    assert [one.payload for one in on_broker(work)] == [b"%d" % n for n in range(100)] * 5


def test_a_held_wire_keeps_everything_and_resolves_at_its_mark(on_broker):
    async def work(port):
        inbox = Inbox()
        wire = await Wire.open(port, "holder", inbox.take)
        await wire.subscribe(["t/#"])
        marked = wire.hold(b"t/end")
        wire.publish([(f"t/{n}", bytes(50_000)) for n in range(20)], qos=0)
        wire.publish([("t/end", b"")], qos=0)
        await marked
        before = len(inbox.messages)
        wire.release()
        got = list(await inbox.wait(21))
        await wire.close()
        return before, got

    before, got = on_broker(work)
    assert before == 0
    assert [one.topic for one in got] == [*(f"t/{n}" for n in range(20)), "t/end"]
    assert [one.at_ns for one in got] == sorted(one.at_ns for one in got)


def test_a_retained_message_is_known_as_such(on_broker):
    async def work(port):
        writer = await Wire.open(port, "writer", lambda _: None)
        writer.publish([("t", b"old")], qos=0)
        writer._write(b"\x31\x06\x00\x01told")  # retained; the client itself never retains
        inbox = Inbox()
        await writer.subscribe(["none"])
        reader = await Wire.open(port, "reader", inbox.take)
        await reader.subscribe(["t"])
        got = list(await inbox.wait(1))
        await writer.close()
        await reader.close()
        return got

    (message,) = on_broker(work)
    assert message.retained
    assert message.payload == b"old"


def test_a_broker_that_goes_away_ends_every_wait(on_broker):
    async def work(port):
        wire = await Wire.open(port, "one", lambda _: None)
        marked = wire.hold(b"never")
        other = await Wire.open(port, "one", lambda _: None)  # the same name: the first is thrown out
        with pytest.raises(ConnectionError):
            await marked
        await wire.lost
        with pytest.raises(ConnectionError):
            wire.publish([("t", b"")])
        await other.close()

    on_broker(work)
