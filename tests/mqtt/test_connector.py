"""The session through the lives of brokers: restarts, take-overs, wrong passwords."""

import asyncio
import socket
import subprocess
import sys

import pytest
from pydantic import SecretStr

from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome

PERSISTENT = "allow_anonymous true\npersistence true\npersistence_location {folder}/\nautosave_interval 1\n"


async def reaches(peer, condition) -> None:
    """Let the session of a peer work until something about it holds."""
    while not condition():
        assert not peer.task.done()
        await asyncio.wait({peer.task}, timeout=0.005)


def test_a_broker_that_comes_up_later_is_found(run, mosquitto, peer):
    broker = mosquitto()

    async def scenario():
        one = peer(broker.port).start()
        await reaches(one, lambda: one.session.last_error)
        assert one.session.last_error == "connection refused"
        assert not one.session.connected
        broker.start()
        await one.connections.get()
        assert one.session.connected
        assert one.session.last_error is None
        assert one.losses.empty()
        await one.vanish()

    run(scenario())


def test_after_a_restart_without_persistence_a_new_session_begins_and_messages_flow(
    run, mosquitto, peer, topic
):
    broker = mosquitto().start()

    async def scenario():
        async with peer(broker.port, topic, token="former") as one:
            assert not one.connection.session_present
            assert one.tokens == [one.session.session_token]
            broker.stop()
            await one.losses.get()
            assert not one.session.connected
            assert not one.session.send(Outbound(topic, b"lost"))
            kept = one.session.publish(Outbound(topic, b"kept", 1))
            broker.start()
            assert not (await one.connections.get()).session_present
            assert await kept is PublishOutcome.DELIVERED
            inbound = await one.messages.get()
            assert (inbound.payload, inbound.session) == (b"kept", one.tokens[1])
            assert len(set(one.tokens)) == 2
            assert (one.session.reconnects, one.session.dropped) == (1, 1)

    run(scenario())


def test_after_a_restart_with_persistence_the_session_is_resumed(run, mosquitto, peer, topic, tmp_path):
    broker = mosquitto(PERSISTENT.format(folder=tmp_path)).start()

    async def scenario():
        async with peer(broker.port, topic, ack=False) as one:
            await one.session.publish(Outbound(topic, b"unacked", 1))
            before = await one.messages.get()
            broker.stop()
            await one.losses.get()
            broker.start()
            assert (await one.connections.get()).session_present
            again = await one.messages.get()
            assert again.dup
            assert (again.mid, again.session) == (before.mid, before.session)
            assert again.connection > before.connection
            assert len(one.tokens) == 1

    run(scenario())


def test_what_was_under_way_when_the_connection_broke_arrives(run, mosquitto, peer, topic):
    """The broker is stopped dead with hundreds of messages under way and in the queue."""
    broker = mosquitto().start()

    async def scenario():
        async with peer(broker.port, topic, keepalive_s=2) as one:
            broker.freeze()
            outcomes = [one.session.publish(Outbound(topic, b"%d" % n, 1)) for n in range(300)]
            await asyncio.sleep(0)
            broker.kill()
            await one.losses.get()
            broker.start()
            assert set(await asyncio.gather(*outcomes)) == {PublishOutcome.DELIVERED}
            return [int(inbound.payload) for inbound in await one.take(300)]

    assert run(scenario()) == list(range(300))


def test_a_kept_session_gets_what_is_under_way_again_as_duplicates_with_the_same_numbers(run, scripted, peer):
    seen = []

    async def script(broker, reader, writer):
        await broker.packet(reader)
        seen.append([])
        writer.write(b"\x20\x03\x01\x00\x00")  # session present
        while len(seen[-1]) < 2:
            first, body = await broker.packet(reader)
            if first == 0x82:
                writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
            else:
                seen[-1].append((first, body))
        if len(seen) == 1:
            return
        for _, body in seen[-1]:
            writer.write(b"\x40\x02" + body[3:5])
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", token="t") as one:
            outcomes = [one.session.publish(Outbound("r", b"%d" % n, 1)) for n in range(2)]
            assert set(await asyncio.gather(*outcomes)) == {PublishOutcome.DELIVERED}
            assert one.tokens == []

    run(scenario())
    first, second = seen
    assert [packet for packet, _ in first] == [0x32, 0x32]
    assert [packet for packet, _ in second] == [0x3A, 0x3A]
    assert [body for _, body in first] == [body for _, body in second]


def test_a_forgotten_session_gets_what_is_under_way_once_and_not_as_duplicates(run, scripted, peer):
    seen = []

    async def script(broker, reader, writer):
        await broker.packet(reader)
        seen.append([])
        writer.write(broker.CONNACK_V5)
        await broker.grant(reader, writer)
        while len(seen[-1]) < 2 or len(seen) == 2:
            first, body = await broker.packet(reader)
            seen[-1].append((first, body))
            if len(seen) == 2:
                writer.write(b"\x40\x02" + body[3:5])

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a") as one:
            outcomes = [one.session.publish(Outbound("r", b"%d" % n, 1)) for n in range(2)]
            await asyncio.gather(*outcomes)

    run(scenario())
    assert [first for first, _ in seen[1]] == [0x32, 0x32]
    assert [body[-1:] for _, body in seen[1]] == [b"0", b"1"]


def test_a_broker_that_takes_less_after_the_reconnect_is_not_overrun(run, scripted, peer):
    """First it takes ten at a time, then one: what was under way must fit into the new limit."""
    most, connections = [], []

    async def script(broker, reader, writer):
        await broker.packet(reader)
        connections.append(1)
        first_time = len(connections) == 1
        writer.write(b"\x20\x06\x01\x00\x03\x21\x00" + (b"\x0a" if first_time else b"\x01"))
        unacked = []
        while True:
            first, body = await broker.packet(reader)
            if first == 0x82:
                writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
            elif first & 0xF0 == 0x30:
                unacked.append(body[3:5])
                if first_time and len(unacked) == 3:
                    return
                if not first_time:
                    # All that was sent at once has arrived at once; a second one would be there too.
                    most.append(1 + len(reader._buffer) // 8)
                    writer.write(b"\x40\x02" + unacked.pop())

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", token="t") as one:
            outcomes = [one.session.publish(Outbound("r", b"%d" % n, 1)) for n in range(3)]
            assert set(await asyncio.gather(*outcomes)) == {PublishOutcome.DELIVERED}

    run(scenario())
    assert most == [1, 1, 1]


def test_a_wrong_password_is_called_so_and_the_right_one_is_tried_on(run, mosquitto, peer, tmp_path, caplog):
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", passwords, "us", "sesame"], check=True, capture_output=True
    )
    port = mosquitto(f"allow_anonymous false\npassword_file {passwords}").start().port

    async def scenario():
        wrong = peer(port, username="us", password=SecretStr("barley"), protocol="5").start()
        await reaches(wrong, lambda: wrong.session._connector._attempts > 2)
        assert wrong.session.last_error == "refused by the broker: not authorized"
        await wrong.vanish()
        async with peer(port, username="us", password=SecretStr("sesame")) as right:
            assert right.session.connected

    run(scenario())
    assert "barley" not in caplog.text
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1, "the same reason is told once"


def test_a_broker_that_says_session_taken_over_is_believed(run, scripted, peer):
    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5)
        await broker.grant(reader, writer)
        writer.write(b"\xe0\x01\x8e")

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", reconnect_max_s=3600) as one:
            reason = await one.losses.get()
            await reaches(one, lambda: one.session.last_error)
            assert one.session.taken_over
            return reason

    assert run(scenario()) == "ended by the broker: session taken over"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_sessions_that_throw_each_other_out_suspect_each_other(run, broker, peer, protocol):
    async def scenario():
        async with peer(broker.port, protocol=protocol, reconnect_max_s=0.01) as one:
            other = peer(broker.port, protocol=protocol, reconnect_max_s=0.01, client_id=one.name).start()
            await reaches(one, lambda: one.session.taken_over or other.session.taken_over)
            await other.vanish()

    run(scenario())


def test_refused_subscriptions_are_named(run, mosquitto, peer, tmp_path):
    (tmp_path / "acl").write_text("topic readwrite ours/#\n")
    port = mosquitto(f"allow_anonymous true\nacl_file {tmp_path}/acl").start().port

    async def scenario():
        filters = ("ours/a", "$share/g/ours/b")
        async with peer(port, *filters) as v5, peer(port, *filters, protocol="3.1.1") as v311:
            assert v5.connection.refused_subscriptions == ()
            assert v5.session.shared_subscriptions
            assert v311.connection.refused_subscriptions == ("$share/g/ours/b",)
            assert not v311.session.shared_subscriptions

    run(scenario())


def test_a_suback_that_refuses_is_read(run, scripted, peer):
    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5)
        _, body = await broker.packet(reader)
        writer.write(b"\x90\x05" + body[:2] + b"\x00\x01\x87")
        await broker.packet(reader)

    async def scenario():
        async with scripted(script) as broker, peer(broker.port, "a", "b") as one:
            return one.connection.refused_subscriptions

    assert run(scenario()) == ("b",)


def test_an_unanswered_subscribe_ends_the_attempt(run, scripted, peer):
    async def script(broker, reader, writer):
        await broker.packet(reader)
        writer.write(broker.CONNACK_V5)
        await reader.read()

    async def scenario():
        async with scripted(script) as broker:
            one = peer(broker.port, "a", connect_timeout_s=0.05).start()
            await reaches(one, lambda: one.session.last_error)
            assert one.session.last_error == "the broker sent no SUBACK within 0.05 s"
            assert one.connections.empty()
            await one.vanish()

    run(scenario())


CHILD = """
import asyncio, sys
from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.mqtt.messages import Outbound
from rkllm_mqtt.mqtt.session import Session

session = Session(
    MqttConfig(port=int(sys.argv[1]), will_delay_s=0), client_id="child",
    will=Outbound(sys.argv[2], b"offline", 1, retain=True), subscriptions=[], may_publish=lambda topic: True,
    session_token="", on_message=print, on_connected=lambda connection: print("up", flush=True),
    on_lost=print, on_session_lost=lambda token: None)
asyncio.run(session.run())
"""


def test_the_broker_publishes_the_will_of_a_process_that_is_killed(run, broker, peer, topic):
    async def scenario():
        async with peer(broker.port, topic) as watcher:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CHILD, str(broker.port), topic, stdout=subprocess.PIPE
            )
            assert await child.stdout.readline() == b"up\n"
            child.kill()
            await child.wait()
            return (await watcher.messages.get()).payload

    assert run(scenario()) == b"offline"


def test_an_error_in_a_callback_ends_the_session_with_it(run, broker, peer):
    async def scenario():
        one = peer(broker.port)
        one.session._connector._listener = replace_connected(one.session._connector._listener)
        one.start()
        await asyncio.wait({one.task})
        with pytest.raises(RuntimeError, match="no"):
            one.task.result()

    run(scenario())


def replace_connected(listener):
    from msgspec.structs import replace

    def fail(connection):
        raise RuntimeError("no")

    return replace(listener, connected=fail)


def test_a_session_that_is_closed_before_it_was_connected_ends(run, peer):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

        async def scenario():
            one = peer(port, reconnect_max_s=3600).start()
            await reaches(one, lambda: one.session.last_error)
            waiting = one.session.publish(Outbound("t", b"", 1))
            await one.session.close([Outbound("t", b"bye")])
            await one.task
            assert await waiting is PublishOutcome.RETRY

        run(scenario())
