"""The promise of `mqtt/connector.py` where a broker speaks only MQTT 3.1.1, or shall."""

import pytest

from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome


def test_an_old_broker_is_spoken_to_in_3_1_1(run, amqtt, peer, topic):
    """amqtt takes our MQTT 5 greeting for an unfinished one and waits; it is doubted after a while."""
    (port,) = amqtt({"type": "tcp"})

    async def scenario():
        async with peer(port, topic, connect_timeout_s=0.3) as one:
            assert one.connection.protocol == one.session.protocol == "3.1.1"
            assert not one.connection.shared_subscriptions
            assert await one.session.publish(Outbound(topic, b"hi", 1)) is PublishOutcome.DELIVERED
            assert (await one.messages.get()).payload == b"hi"

    run(scenario())


@pytest.mark.parametrize(
    "connack", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00"], ids=["rc 1 of 3.1.1", "0x84 of MQTT 5"]
)
def test_a_broker_that_refuses_mqtt_5_is_spoken_to_in_3_1_1_at_once(run, scripted, peer, connack):
    async def script(broker, reader, writer):
        await broker.packet(reader)
        if broker.levels[-1] == 5:
            writer.write(connack)
            return
        writer.write(broker.CONNACK_V311)
        _, body = await broker.packet(reader)
        writer.write(b"\x90\x03" + body[:2] + b"\x01")
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", reconnect_max_s=3600) as one:
            assert one.connection.protocol == "3.1.1"
            return broker.levels

    assert run(scenario()) == [5, 4]


def test_a_broker_that_closes_on_mqtt_5_is_spoken_to_in_3_1_1_after_one_more_try(run, scripted, peer):
    async def script(broker, reader, writer):
        await broker.packet(reader)
        if broker.levels[-1] == 5:
            return
        writer.write(broker.CONNACK_V311)
        first, body = await broker.packet(reader)
        if first == 0x82:
            writer.write(b"\x90\x03" + body[:2] + b"\x01")
            await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a") as one:
            assert one.connection.protocol == "3.1.1"
            return broker.levels

    assert run(scenario()) == [5, 5, 4, 5, 4]


def test_what_is_under_way_survives_a_change_of_the_version(run, scripted, peer):
    seen = []

    async def script(broker, reader, writer):
        await broker.packet(reader)
        if len(broker.levels) == 2:
            writer.write(b"\x20\x02\x00\x01")
            return
        v5 = broker.levels[-1] == 5
        writer.write(broker.CONNACK_V5 if v5 else b"\x20\x02\x01\x00")  # session present, then
        _, body = await broker.packet(reader)
        writer.write(b"\x90\x04" + body[:2] + b"\x00\x01" if v5 else b"\x90\x03" + body[:2] + b"\x01")
        first, body = await broker.packet(reader)
        seen.append((first, body[-2:]))
        if not v5:
            writer.write(b"\x40\x02" + body[3:5])
            await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a") as one:
            assert await one.session.publish(Outbound("r", b"hi", 1)) is PublishOutcome.DELIVERED
            return broker.levels

    assert run(scenario()) == [5, 5, 4]
    assert seen == [(0x32, b"hi"), (0x32, b"hi")]


def test_3_1_1_alone_can_be_wanted(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, topic, protocol="3.1.1") as one:
            assert one.connection.protocol == "3.1.1"
            await one.session.publish(Outbound(topic, b"hi", 1, user_properties=(("x-a", "1"),)))
            inbound = await one.messages.get()
            assert (inbound.payload, inbound.user_properties) == (b"hi", ())

    run(scenario())
