"""The event loop's side of a connection: back-pressure, keepalive, bursts, and what ends it."""

import asyncio

from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome


def test_paused_reading_pushes_back_and_loses_nothing(run, mosquitto, peer, topic):
    port = mosquitto().start().port
    count, payload = 400, b"x" * 20_000

    async def scenario():
        async with peer(port) as writer, peer(port, topic) as one:
            one.session.pause_reading()
            outcomes = [writer.session.publish(Outbound(topic, payload, 1)) for _ in range(count)]
            await asyncio.gather(*outcomes)
            while_paused = one.messages.qsize()
            # Not even watched: a readable socket that nobody reads would keep the loop spinning.
            descriptor = one.session._connector.exchange.driver._link.fileno()
            assert not asyncio.get_running_loop().remove_reader(descriptor)
            one.session.resume_reading()
            await one.take(count)
            return while_paused

    assert run(scenario()) == 0


def test_the_connection_survives_a_pause_longer_than_the_keepalive(run, mosquitto, peer, topic, until):
    broker = mosquitto().start()

    async def scenario():
        async with peer(broker.port, topic, keepalive_s=2) as one:
            one.session.pause_reading()
            one.session.pause_reading()
            # More than one and a half keepalives of pings, after which the broker would have closed.
            pinged = f"Received PINGREQ from {one.name}"
            await asyncio.to_thread(until, lambda: broker.logged(pinged) >= 4, "four pings")
            one.session.resume_reading()
            await one.session.publish(Outbound(topic, b"still here", 1))
            assert (await one.messages.get()).payload == b"still here"
            assert one.losses.empty()

    run(scenario())


def test_a_broker_that_falls_silent_is_noticed_by_the_keepalive(run, mosquitto, peer):
    broker = mosquitto().start()

    async def scenario():
        async with peer(broker.port, keepalive_s=2) as one:
            broker.freeze()
            reason = await one.losses.get()
            broker.thaw()
            await one.connections.get()
            return reason

    assert run(scenario()) == "the broker fell silent"


def test_what_the_kernel_does_not_take_waits_and_beyond_a_bound_is_dropped_and_counted(run, scripted, peer):
    received = bytearray()
    go_on, all_in = asyncio.Event(), asyncio.Event()

    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5)
        await broker.grant(reader, writer)
        await go_on.wait()
        while data := await reader.read(1 << 20):
            received.extend(data)
            if received.endswith(b"the last"):
                all_in.set()

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a") as one:
            payload = b"y" * 50_000
            sent = 0
            while one.session.send(Outbound("t", payload)):
                sent += 1
                await asyncio.sleep(0)
            assert one.session.dropped == 1
            go_on.set()
            assert await one.session.publish(Outbound("t", b"the last", 0)) is PublishOutcome.RETRY
            while not one.session.send(Outbound("t", b"the last")):
                await asyncio.wait({one.task}, timeout=0.001)
            await all_in.wait()
            assert received.count(b"\x00\x01t\x00") == sent + 1
            assert sent > 20

    run(scenario())


def test_a_garbled_stream_ends_the_connection_and_a_new_one_is_made(run, scripted, peer):
    connections = []

    async def script(broker, reader, writer):
        connections.append(1)
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5)
        await broker.grant(reader, writer)
        if len(connections) == 1:
            writer.write(b"\x32\x02\x00\x09")  # a PUBLISH that ends within its topic
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a") as one:
            reason = await one.losses.get()
            await one.connections.get()
            return reason

    assert "cannot be understood" in run(scenario())


def test_a_burst_of_small_messages_does_not_keep_the_loop_from_other_work(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, topic) as one:
            turns = 0

            async def other_work():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.create_task(other_work())
            outcomes = [one.session.publish(Outbound(topic, b"x", 1)) for _ in range(2_000)]
            assert set(await asyncio.gather(*outcomes)) == {PublishOutcome.DELIVERED}
            await one.take(2_000)
            other.cancel()
            return turns

    assert run(scenario()) > 20
