"""The seams in paho that we lean on, and its settings that we cannot do without."""

import socket

import pytest
from pydantic import SecretStr

from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.mqtt.client import PahoClient, announced_keepalive_s
from rkllm_mqtt.mqtt.link import Link
from rkllm_mqtt.mqtt.messages import Outbound, Subscription
from rkllm_mqtt.mqtt.versions import Version

WILL = Outbound("us/status", b"offline", 1, retain=True)


@pytest.fixture
def spoken():
    """Return a function: what a client says over a fresh link, step by step."""
    opened = []

    def make(version: Version, client: PahoClient | None = None, **settings):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = Link(ours)
        opened.extend((link, theirs))
        client = client or PahoClient(MqttConfig(**settings), "us", WILL, version)
        client.on_socket_register_write = lambda *_: None

        def said() -> bytes:
            client.write_to_link()
            link.flush()
            return theirs.recv(65_536)

        client.connect_over(link)
        return client, theirs, said

    yield make
    for each in opened:
        each.close()


def test_connect_resumes_the_session_each_time_with_expiry_and_a_delayed_will(spoken):
    client, _, said = spoken(Version.V5, session_expiry_s=258, will_delay_s=7, keepalive_s=9)
    first = said()
    assert first[2:9] == b"\x00\x04MQTT\x05"
    flags = first[9]
    assert not flags & 0x02, "no clean start, the very first time"
    assert flags & 0x3C == 0x2C, "a retained will with QoS 1"
    # Less than was configured: mosquitto is late by up to six seconds.
    assert int.from_bytes(first[10:12]) == 4
    assert b"\x11" + (258).to_bytes(4) in first
    assert b"\x18" + (7).to_bytes(4) in first
    _, _, said_again = spoken(Version.V5, client)
    assert not said_again()[9] & 0x02


@pytest.mark.parametrize("configured_s", [6, 10, 30, 3600])
def test_a_broker_that_looks_every_six_seconds_still_finds_us_silent_in_time(configured_s):
    assert 1.5 * announced_keepalive_s(configured_s) + 6 <= 1.5 * configured_s
    assert announced_keepalive_s(2) == 2


def test_connect_resumes_the_session_on_3_1_1(spoken):
    _, _, said = spoken(Version.V311)
    first = said()
    assert first[8] == 4
    assert not first[9] & 0x02


def test_user_name_and_password_are_said_and_shown_nowhere(spoken):
    client, _, said = spoken(Version.V5, username="me", password=SecretStr("sesame"))
    assert b"\x00\x02me\x00\x06sesame" in said()
    assert "sesame" not in repr(client)


def test_retained_messages_are_not_asked_for_and_forwarded_ones_count_as_live(spoken):
    client, _, said = spoken(Version.V5)
    said()
    client.ask_for([Subscription("a/+")])
    # QoS 1, no "no local", no "retain as published", retain handling 2
    assert said()[-1] == 0x21


def test_many_filters_are_asked_for_in_packets_of_eight(spoken):
    client, _, said = spoken(Version.V311)
    said()
    asked = client.ask_for([Subscription(f"a/{number}") for number in range(20)])
    assert [len(chunk) for chunk in asked.values()] == [8, 8, 4]


def test_more_messages_than_pahos_own_window_are_sent_at_once(spoken):
    client, broker, said = spoken(Version.V311)
    said()
    broker.sendall(b"\x20\x02\x00\x00")
    client.loop_read()
    mids = [client.hand_over(Outbound("t", b"", 1)) for _ in range(100)]
    assert len(set(mids)) == 100
    assert said().count(b"\x32\x05\x00\x01t") == 100


def test_a_packet_identifier_that_is_still_in_use_is_passed_over(spoken):
    client, broker, said = spoken(Version.V311)
    said()
    broker.sendall(b"\x20\x02\x00\x00")
    client.loop_read()
    stuck = client.hand_over(Outbound("t", b"", 1))
    client._last_mid = 65_534
    following = [client.hand_over(Outbound("t", b"", 1)) for _ in range(3)]
    assert stuck == 1
    assert following == [65_535, 2, 3]


def test_a_received_publish_is_handed_on_as_bytes(spoken):
    client, broker, said = spoken(Version.V5)
    said()
    received = []
    client.on_received = lambda first, body: received.append((first, body))
    broker.sendall(b"\x20\x03\x00\x00\x00" + b"\x32\x07\x00\x01a\x00\x05\x00x")
    client.loop_read()
    client.loop_read()
    assert received == [(0x32, b"\x00\x01a\x00\x05\x00x")]
