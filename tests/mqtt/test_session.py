"""What the rest of the daemon relies on: outcomes, the gate, dropping, farewell."""

import asyncio

import pytest

from rkllm_mqtt.mqtt.messages import Outbound, PublishDenied, PublishOutcome


@pytest.fixture
def guarded(mosquitto, tmp_path):
    """Return a broker that takes publishes under `ours/` alone, and no packet above 2,000 bytes."""
    (tmp_path / "acl").write_text("topic readwrite ours/#\ntopic read #\n")
    settings = f"allow_anonymous true\nacl_file {tmp_path}/acl\nmax_packet_size 2000"
    return mosquitto(settings).start()


def test_a_publish_that_nobody_hears_was_delivered(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port) as one:
            return await one.session.publish(Outbound(topic, b"", 1))

    assert run(scenario()) is PublishOutcome.DELIVERED


def test_a_publish_that_the_acl_forbids_is_refused_and_the_next_one_is_not(run, guarded, peer):
    async def scenario():
        async with peer(guarded.port) as one:
            forbidden = one.session.publish(Outbound("theirs/a", b"", 1))
            allowed = one.session.publish(Outbound("ours/a", b"", 1))
            return await forbidden, await allowed

    assert run(scenario()) == (PublishOutcome.REFUSED, PublishOutcome.DELIVERED)


def test_a_packet_above_the_brokers_maximum_is_not_sent_and_the_largest_below_is(run, guarded, peer):
    async def scenario():
        async with peer(guarded.port, "ours/a") as one:
            assert one.session.maximum_packet_bytes == one.connection.maximum_packet_bytes == 2_000
            # 1 + 2 bytes of fixed header, 2 + 6 of topic, 2 of packet identifier, 1 of properties
            fits = Outbound("ours/a", b"x" * (2_000 - 14), 1)
            outcomes = [await one.session.publish(fits)]
            outcomes.append(await one.session.publish(Outbound("ours/a", fits.payload + b"x", 1)))
            outcomes.append(await one.session.publish(Outbound("ours/a", fits.payload + b"xxx", 0)))
            assert not one.session.send(Outbound("ours/a", fits.payload + b"xxx"))
            assert len((await one.messages.get()).payload) == 1_986
            assert one.session.send(Outbound("ours/a", fits.payload + b"xx"))
            assert len((await one.messages.get()).payload) == 1_988
            assert one.losses.empty()
            return outcomes, one.session.dropped

    delivered, too_large = PublishOutcome.DELIVERED, PublishOutcome.TOO_LARGE
    assert run(scenario()) == ([delivered, too_large, too_large], 2)


def test_a_large_packet_that_waited_for_the_connection_is_found_out_then(run, guarded, peer):
    async def scenario():
        one = peer(guarded.port)
        waiting = one.session.publish(Outbound("ours/a", b"x" * 3_000, 1))
        async with one:
            return await waiting

    assert run(scenario()) is PublishOutcome.TOO_LARGE


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b", "not/ours"])
def test_a_topic_that_is_not_allowed_is_refused_and_nothing_is_sent(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, "#") as one:
            one.denied.add("not/ours")
            for _ in range(2):
                assert await one.session.publish(Outbound(topic, b"", 1)) is PublishOutcome.REFUSED
                assert await one.session.publish(Outbound(topic, b"", 0)) is PublishOutcome.REFUSED
                assert not one.session.send(Outbound(topic, b""))
            assert one.session.send(Outbound("ours", b"the first to arrive"))
            while (inbound := await one.messages.get()).retain or inbound.topic.startswith(("t/", "peer-")):
                pass
            assert inbound.payload == b"the first to arrive"

    run(scenario())


def test_a_will_that_is_not_allowed_is_found_at_once(run, peer):
    async def scenario():
        one = peer(1, will=Outbound("not/ours", b"", 1))
        one.denied.add("not/ours")
        with pytest.raises(PublishDenied):
            await one.session.run()

    run(scenario())


def test_the_gate_is_not_asked_again_for_a_topic_that_it_let_pass(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port) as one:
            asked = []
            one.session._may_publish = lambda name: not asked.append(name)
            for _ in range(3):
                one.session.send(Outbound(topic, b""))
            for number in range(3_000):
                one.session.send(Outbound(f"{topic}/{number}", b""))
            assert asked.count(topic) == 1
            assert len(one.session._known_topics) <= 1_024

    run(scenario())


def test_what_cannot_be_encoded_is_the_callers_error_and_hurts_nobody(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port) as one:
            with pytest.raises(OverflowError):
                one.session.publish(Outbound(topic, b"", 1, correlation_data=b"x" * 70_000))
            with pytest.raises(UnicodeEncodeError):
                one.session.publish(Outbound(topic, b"", 1, content_type="\ud800"))
            return await one.session.publish(Outbound(topic, b"", 1))

    assert run(scenario()) is PublishOutcome.DELIVERED


def test_qos_0_without_a_connection_is_dropped_and_counted(run, peer):
    async def scenario():
        session = peer(1).session
        assert not session.send(Outbound("t", b""))
        assert await session.publish(Outbound("t", b"", 0)) is PublishOutcome.RETRY
        assert session.dropped == 2
        assert (session.connected, session.reconnects, session.maximum_packet_bytes) == (False, 0, None)

    run(scenario())


def test_qos_1_published_before_the_connection_is_sent_with_it_in_order(run, broker, peer, topic):
    async def scenario():
        one = peer(broker.port, topic)
        outcomes = [one.session.publish(Outbound(topic, b"%d" % n, 1)) for n in range(100)]
        async with one:
            assert set(await asyncio.gather(*outcomes)) == {PublishOutcome.DELIVERED}
            return [int(inbound.payload) for inbound in await one.take(100)]

    assert run(scenario()) == list(range(100))


def test_the_farewell_is_published_and_the_will_is_not(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, topic) as watcher:
            one = peer(broker.port, will=Outbound(topic, b"will", 1))
            async with one:
                pass
            async with one_more(peer, broker, topic) as other:
                await other.session.close([Outbound(topic, b"farewell")])
                await other.task
                assert not other.session.connected
                late = other.session.publish(Outbound(topic, b"late", 1))
                assert await late is PublishOutcome.RETRY
            await watcher.session.publish(Outbound(topic, b"end", 1))
            return [inbound.payload for inbound in await watcher.take(2)]

    assert run(scenario()) == [b"farewell", b"end"]


def one_more(peer, broker, topic):
    return peer(broker.port, will=Outbound(topic, b"will", 1))


def test_a_cancelled_session_leaves_the_word_to_the_will(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, topic) as watcher:
            async with one_more(peer, broker, topic) as one:
                waiting = one.session.publish(Outbound(topic, b"", 1))
                await one.vanish()
                assert one.task.cancelled()
                assert await waiting is PublishOutcome.RETRY
            while (inbound := await watcher.messages.get()).payload == b"":
                pass
            return inbound.payload

    assert run(scenario()) == b"will"


@pytest.mark.parametrize(("protocol", "farewells"), [("5", [b"\x04"]), ("3.1.1", [])])
def test_a_farewell_that_the_broker_does_not_take_is_left_to_the_will(
    run, scripted, peer, monkeypatch, protocol, farewells
):
    monkeypatch.setattr("rkllm_mqtt.mqtt.session.ANSWER_S", 0.05)

    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5 if protocol == "5" else broker.CONNACK_V311)
        _, body = await broker.packet(reader)
        writer.write(
            b"\x90\x03" + body[:2] + b"\x01" if protocol == "3.1.1" else b"\x90\x04" + body[:2] + b"\x00\x01"
        )
        while True:
            await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", protocol=protocol) as one:
            await one.session.close([Outbound("s", b"offline")])
            return broker.farewells

    assert run(scenario()) == farewells


def test_after_unsubscribing_nothing_more_comes_not_even_after_a_restart(
    run, mosquitto, peer, topic, tmp_path
):
    settings = f"allow_anonymous true\npersistence true\npersistence_location {tmp_path}/\n"
    broker = mosquitto(settings).start()

    async def scenario():
        shared, kept = f"$share/g/{topic}/shared", f"{topic}/kept"
        async with peer(broker.port, shared, kept) as one:
            assert await one.session.unsubscribe([shared])
            broker.stop()
            await one.losses.get()
            assert not await one.session.unsubscribe(["never/subscribed"])
            broker.start()
            await one.connections.get()
            for name in ("shared", "kept"):
                await one.session.publish(Outbound(f"{topic}/{name}", b"", 1))
            return (await one.messages.get()).topic, one.messages.empty()

    assert run(scenario()) == (f"{topic}/kept", True)


def test_a_subscription_of_a_former_configuration_is_given_up_at_the_next_connection(
    run, broker, peer, topic
):
    async def scenario():
        former = peer(broker.port, f"{topic}/old", f"{topic}/new")
        async with former:
            await former.vanish()
        one = peer(broker.port, f"{topic}/new", client_id=former.name, token=former.session.session_token)
        await one.session.unsubscribe([f"{topic}/old"])
        async with one:
            assert one.connection.session_present
            for name in ("old", "new"):
                await one.session.publish(Outbound(f"{topic}/{name}", b"", 1))
            return (await one.messages.get()).topic

    assert run(scenario()) == f"{topic}/new"


def test_a_message_for_which_a_broker_always_hangs_up_is_given_up_and_the_others_arrive(run, scripted, peer):
    """As a broker with a limit that it does not declare; it keeps the session."""
    taken = []

    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(b"\x20\x03\x01\x00\x00")  # session present
        while True:
            first, body = await broker.packet(reader)
            if first >> 4 == 8:  # what is repeated comes before it
                writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
            elif first >> 4 == 3:
                topic = body[2:3]
                if topic == b"p":
                    return  # hangs up
                taken.append(topic)
                writer.write(b"\x40\x02" + body[3:5])

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "in", reconnect_max_s=0.01) as one:
            outcomes = [one.session.publish(Outbound(topic, b"x", 1)) for topic in ("a", "p", "b", "c")]
            results = await asyncio.gather(*outcomes)
            assert [result.value for result in results] == ["delivered", "refused", "delivered", "delivered"]
            assert one.session.unacknowledged == 0

    run(scenario())
    assert set(taken) == {b"a", b"b", b"c"}
