"""Any bytes a client can put into a message make a value, and only a broken broker costs the connection."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from rkllm_mqtt.mqtt.publication import read_publish


def read(first: int, body: bytes, *, v5: bool = True):
    return read_publish(first, body, v5=v5, connection=3, session="token")


def test_every_property_is_read():
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "r"
    properties.CorrelationData = b"\x00"
    properties.ContentType = "text/plain"
    properties.MessageExpiryInterval = 20
    properties.PayloadFormatIndicator = 1
    properties.SubscriptionIdentifier = 200
    properties.TopicAlias = 1
    properties.UserProperty = [("a", "1"), ("a", "2")]
    inbound = read(0x3A, b"\x00\x03a/b\x00\x07" + properties.pack() + b"hi")
    assert (inbound.topic, inbound.payload, inbound.qos, inbound.mid) == ("a/b", b"hi", 1, 7)
    assert (inbound.dup, inbound.retain) == (True, False)
    assert (inbound.response_topic, inbound.correlation_data) == ("r", b"\x00")
    assert (inbound.content_type, inbound.message_expiry_s) == ("text/plain", 20)
    assert inbound.user_properties == (("a", "1"), ("a", "2"))
    assert (inbound.connection, inbound.session) == (3, "token")


def test_a_3_1_1_message_has_no_properties():
    inbound = read(0x31, b"\x00\x01a\x00", v5=False)
    assert (inbound.topic, inbound.payload, inbound.qos, inbound.retain) == ("a", b"\x00", 0, True)
    assert inbound.user_properties == ()


def test_a_byte_order_mark_in_a_property_is_just_a_character():
    mark = "\ufeff".encode()
    inbound = read(0x30, b"\x00\x01a" + bytes((6,)) + b"\x08\x00\x03" + mark)
    assert inbound.response_topic == "\ufeff"


@pytest.mark.parametrize("wrong", [b"\xff", b"\0"], ids=["not UTF-8", "NUL"])
def test_a_response_topic_that_is_no_text_is_not_overlooked(wrong):
    assert read(0x30, b"\x00\x01a\x04\x08\x00\x01" + wrong).response_topic == "\ufffd"


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x02\xc3\x28\x00\x07\x00hi",
        b"\x00\x01a\x00\x07\x02\x7f\x00hi",
        b"\x00\x01a\x00\x07\x03\x08\x00\x09hi",
    ],
    ids=["topic is not UTF-8", "unknown property", "property too long"],
)
def test_what_cannot_be_read_has_an_empty_topic_and_can_be_acknowledged(body):
    inbound = read(0x32, body)
    assert (inbound.topic, inbound.mid, inbound.payload) == ("", 7, b"hi")


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x32, b"\x00\x01a\x00"),
        (0x30, b"\x00\x09a"),
        (0x30, b"\x00\x01a\x09"),
        (0x34, b"\x00\x01a\x00\x01\x00"),
    ],
    ids=["no identifier", "no topic", "no properties", "QoS 2"],
)
def test_a_broken_broker_is_an_error(first, body):
    with pytest.raises(MalformedPacket):
        read(first, body)


@given(st.sampled_from([0x30, 0x32, 0x3B]), st.binary(max_size=60), st.booleans())
def test_no_bytes_lead_to_another_error(first, body, v5):
    with contextlib.suppress(MalformedPacket):
        read(first, body, v5=v5)
