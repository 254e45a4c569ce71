"""What a CONNACK grants, and what its silence means."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from rkllm_mqtt.mqtt.limits import BrokerLimits


def connack(**named) -> Properties:
    properties = Properties(PacketTypes.CONNACK)
    for name, value in named.items():
        setattr(properties, name, value)
    return properties


def test_a_silent_mqtt_5_broker_has_the_limits_of_the_protocol():
    limits = BrokerLimits.of_connack(False, connack(), v5=True)
    assert (limits.maximum_packet_bytes, limits.receive_maximum) == (None, 65_535)
    assert limits.shared_subscriptions


def test_the_limits_of_a_broker_are_read():
    limits = BrokerLimits.of_connack(
        True, connack(MaximumPacketSize=100, ReceiveMaximum=7, SharedSubscriptionAvailable=0), v5=True
    )
    assert limits == BrokerLimits(True, 100, 7, False)
    assert limits.fits(100)
    assert not limits.fits(101)


def test_3_1_1_cannot_say_that_it_shares_subscriptions():
    assert BrokerLimits.of_connack(True, None, v5=False) == BrokerLimits(session_present=True)


def test_no_packet_is_larger_than_the_protocol_can_say():
    assert BrokerLimits().fits(268_435_460)
    assert not BrokerLimits().fits(268_435_461)
