"""Our own encoding against paho's reader and writer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.properties import VariableByteIntegers

from rkllm_mqtt.mqtt.messages import Outbound
from rkllm_mqtt.mqtt.packets import (
    paho_properties,
    publish_bytes,
    publish_properties,
    qos0_publish,
    variable_length,
)

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=200)
messages = st.builds(
    Outbound,
    topic=text.filter(bool),
    payload=st.binary(max_size=300),
    retain=st.booleans(),
    correlation_data=st.none() | st.binary(max_size=200),
    content_type=st.none() | text,
    user_properties=st.lists(st.tuples(text, text), max_size=3).map(tuple),
)


def body_of(packet: bytes) -> bytes:
    """Take the fixed header off, checking its length."""
    length, size = VariableByteIntegers.decode(packet[1:])
    assert len(packet) == 1 + size + length
    return packet[1 + size :]


@given(messages)
def test_a_qos_0_publish_is_read_back_as_it_was_meant_on_mqtt_5(message):
    packet = qos0_publish(message, v5=True)
    read = _packet.decode_publish(packet[0], body_of(packet), MQTTProtocolVersion.MQTTv5)
    assert (read.topic.decode(), bytes(read.payload)) == (message.topic, message.payload)
    assert (read.qos, read.dup, read.retain) == (0, False, message.retain)
    assert getattr(read.properties, "CorrelationData", None) == message.correlation_data
    assert getattr(read.properties, "ContentType", None) == message.content_type
    assert tuple(getattr(read.properties, "UserProperty", ())) == message.user_properties


@given(messages)
def test_a_qos_0_publish_has_no_properties_on_3_1_1(message):
    packet = qos0_publish(message, v5=False)
    read = _packet.decode_publish(packet[0], body_of(packet), MQTTProtocolVersion.MQTTv311)
    assert (read.topic.decode(), bytes(read.payload)) == (message.topic, message.payload)


@given(messages, st.booleans())
def test_the_size_of_a_packet_is_known_exactly(message, v5):
    assert publish_bytes(message, v5=v5) == len(qos0_publish(message, v5=v5))


@given(messages)
def test_the_properties_that_paho_packs_for_qos_1_have_the_size_we_counted(message):
    packed = paho_properties(message)
    assert len(publish_properties(message)) == (1 if packed is None else len(packed.pack()))


@pytest.mark.parametrize("value", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_a_variable_byte_integer_is_the_protocols(value):
    assert variable_length(value) == VariableByteIntegers.encode(value)


def test_the_will_carries_its_delay():
    properties = paho_properties(Outbound("a", b""), will_delay_s=5)
    assert properties.WillDelayInterval == 5


def test_a_property_that_is_too_long_cannot_be_encoded():
    with pytest.raises(OverflowError):
        publish_properties(Outbound("a", b"", correlation_data=b"x" * 65_536))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_property_for_which_a_broker_would_close_cannot_be_encoded(text):
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        publish_properties(Outbound("a", b"", user_properties=(("name", text),)))
