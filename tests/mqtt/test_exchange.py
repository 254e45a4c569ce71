"""Messages and acks over one connection, against a real broker and one that misbehaves."""

import asyncio

import pytest

from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome


def test_every_property_arrives_as_it_was_sent(run, broker, peer, topic):
    sent = Outbound(
        topic,
        b"\x00\xff",
        1,
        correlation_data=b"\x00\x01",
        content_type="application/json",
        user_properties=(("x-a", "1"), ("x-a", "2")),
    )

    async def scenario():
        async with peer(broker.port, topic) as one:
            assert await one.session.publish(sent) is PublishOutcome.DELIVERED
            assert one.session.send(sent)
            return await one.take(2)

    for inbound, qos in zip(run(scenario()), (1, 0), strict=True):
        assert (inbound.topic, inbound.payload, inbound.qos) == (topic, sent.payload, qos)
        assert (inbound.correlation_data, inbound.content_type) == (sent.correlation_data, sent.content_type)
        assert inbound.user_properties == sent.user_properties


def test_a_stored_retained_message_is_not_delivered_and_a_live_one_is_not_marked(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port) as writer:
            await writer.session.publish(Outbound(topic, b"stored", 1, retain=True))
            async with peer(broker.port, topic) as reader:
                await writer.session.publish(Outbound(topic, b"live", 1, retain=True))
                return await reader.messages.get()

    inbound = run(scenario())
    assert (inbound.payload, inbound.retain) == (b"live", False)


def test_pubacks_leave_in_order_of_receipt_whatever_the_order_of_the_acks(run, scripted, peer):
    """The broker sends packets 5, 6 and 7; acks are given for 7, 6, 5 and the broker notes the PUBACKs."""
    acked, all_in = [], asyncio.Event()

    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5)
        await broker.grant(reader, writer)
        for mid in (5, 6, 7):
            writer.write(b"\x32\x06\x00\x01a\x00" + bytes((mid,)) + b"\x00")
        while len(acked) < 3:
            first, body = await broker.packet(reader)
            acked.append((first, body))
        all_in.set()
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", ack=False) as one:
            for inbound in reversed(await one.take(3)):
                assert not acked
                one.session.ack(inbound)
            await all_in.wait()

    run(scenario())
    assert acked == [(0x40, b"\x00\x05"), (0x40, b"\x00\x06"), (0x40, b"\x00\x07")]


def test_what_is_published_before_an_ack_leaves_before_its_puback(run, scripted, peer):
    seen, all_in = [], asyncio.Event()

    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(b"\x20\x06\x00\x00\x03\x21\x00\x01")  # receive maximum 1
        await broker.grant(reader, writer)
        writer.write(b"\x32\x06\x00\x01a\x00\x05\x00")
        while len(seen) < 3:
            first, body = await broker.packet(reader)
            seen.append(first >> 4)
            if first >> 4 == 3:
                writer.write(b"\x40\x02" + body[3:5])
        all_in.set()
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", ack=False) as one:
            inbound = await one.messages.get()
            outcomes = [one.session.publish(Outbound("r", b"", 1)) for _ in range(2)]
            one.session.ack(inbound)
            await asyncio.gather(*outcomes)
            await all_in.wait()

    run(scenario())
    assert seen == [3, 3, 4]


def test_unacknowledged_messages_come_again_as_duplicates_and_old_acks_are_void(run, broker, peer, topic):
    async def scenario():
        first = peer(broker.port, topic, ack=False, client_id=topic.replace("/", "-"))
        async with peer(broker.port) as writer:
            first.start()
            await first.connections.get()
            for payload in (b"1", b"2", b"3"):
                await writer.session.publish(Outbound(topic, payload, 1))
            before = await first.take(3)
            first.session.ack(before[0])
            await first.session.unsubscribe(["nothing/at/all"])  # its answer comes after the PUBACK was taken
            await first.vanish()
            async with peer(
                broker.port, topic, ack=False, client_id=first.name, token=first.session.session_token
            ) as second:
                again = await second.take(2)
                # An ack of the old connection must not acknowledge anything on the new one.
                for inbound in before:
                    second.session.ack(inbound)
                await second.vanish()
            async with peer(
                broker.port, topic, client_id=first.name, token=first.session.session_token
            ) as third:
                return before, again, await third.take(2), second.tokens + third.tokens

    before, again, once_more, new_sessions = run(scenario())
    assert [inbound.payload for inbound in again] == [b"2", b"3"]
    assert [inbound.payload for inbound in once_more] == [b"2", b"3"]
    assert all(inbound.dup for inbound in again + once_more)
    assert [inbound.mid for inbound in again] == [inbound.mid for inbound in before[1:]]
    assert {inbound.session for inbound in again} == {before[0].session}
    assert not new_sessions


def test_a_message_that_the_daemon_chokes_on_is_acknowledged_and_hurts_nobody(run, broker, peer, topic):
    taken = []

    async def scenario():
        async with peer(broker.port, topic, ack=False) as one:

            def choke(inbound):
                if inbound.payload == b"poison":
                    raise RuntimeError("no")
                one.session.ack(inbound)
                one.messages.put_nowait(inbound)

            one.session._on_message = choke
            for payload in (b"poison", b"fine"):
                await one.session.publish(Outbound(topic, payload, 1))
            taken.append((await one.messages.get()).payload)
            await one.vanish()
        async with peer(broker.port, topic, client_id=one.name) as again:
            await again.session.publish(Outbound(topic, b"later", 1))
            taken.append((await again.messages.get()).payload)

    run(scenario())
    assert taken == [b"fine", b"later"], "the poisoned one did not come again"


@pytest.mark.parametrize(
    "publish",
    [
        b"\x32\x07\x00\x02\xc3\x28\x00\x05\x00",
        b"\x32\x08\x00\x01a\x00\x05\x02\x7f\x00",
        b"\x32\x05\x00\x00\x00\x05\x00",
    ],
    ids=["a topic that is not UTF-8", "an unknown property", "no topic"],
)
def test_what_cannot_be_read_is_counted_acknowledged_and_dropped(run, scripted, peer, publish):
    acked = asyncio.Event()

    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5)
        await broker.grant(reader, writer)
        writer.write(publish)
        assert await broker.packet(reader) == (0x40, b"\x00\x05")
        acked.set()
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a") as one:
            await acked.wait()
            assert one.messages.empty()
            assert one.session.malformed == 1
            assert one.losses.empty()

    run(scenario())


def test_a_byte_order_mark_in_a_property_does_not_cost_the_connection(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, topic) as one:
            await one.session.publish(Outbound(topic, b"", 1, user_properties=(("x-name", "\ufeff"),)))
            inbound = await one.messages.get()
            assert one.session.reconnects == 0
            return inbound.user_properties

    assert run(scenario()) == (("x-name", "\ufeff"),)


def test_no_more_is_under_way_than_the_broker_takes(run, scripted, peer):
    """A QoS 0 message, which waits for nobody, overtakes those that the window holds back."""
    before_the_marker, in_turn = [], []

    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(b"\x20\x06\x00\x00\x03\x21\x00\x03")  # receive maximum 3
        await broker.grant(reader, writer)
        first, body = await broker.packet(reader)
        while first == 0x32:
            before_the_marker.append(body[3:5])
            first, body = await broker.packet(reader)
        for mid in before_the_marker:
            writer.write(b"\x40\x02" + mid)
            _, body = await broker.packet(reader)
            in_turn.append(body[6:])
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a") as one:
            outcomes = [one.session.publish(Outbound("r", b"%d" % number, 1)) for number in range(6)]
            assert one.session.send(Outbound("r", b"marker"))
            assert set(await asyncio.gather(*outcomes[:3])) == {PublishOutcome.DELIVERED}

    run(scenario())
    assert len(before_the_marker) == 3
    assert in_turn[:2] == [b"3", b"4"]


def test_a_thousand_messages_each_way_arrive_once_and_in_order(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, topic) as one:
            payloads = [b"%d" % number for number in range(1_000)]
            outcomes = await asyncio.gather(*(one.session.publish(Outbound(topic, p, 1)) for p in payloads))
            assert set(outcomes) == {PublishOutcome.DELIVERED}
            assert [inbound.payload for inbound in await one.take(1_000)] == payloads
            assert one.messages.empty()

    run(scenario())
