"""What the words of a broker mean to us."""

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from rkllm_mqtt.mqtt.messages import (
    PUBACK_REFUSALS,
    PublishDenied,
    PublishOutcome,
    Subscription,
    outcome_of_puback,
)


@pytest.mark.parametrize("code", [0x00, 0x10])
def test_a_message_that_nobody_subscribes_to_was_delivered_all_the_same(code):
    assert outcome_of_puback(code) is PublishOutcome.DELIVERED


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("Not authorized", PublishOutcome.REFUSED),
        ("Topic name invalid", PublishOutcome.REFUSED),
        ("Payload format invalid", PublishOutcome.REFUSED),
        ("Quota exceeded", PublishOutcome.RETRY),
        ("Unspecified error", PublishOutcome.RETRY),
        ("Implementation specific error", PublishOutcome.RETRY),
        ("Packet identifier in use", PublishOutcome.RETRY),
    ],
)
def test_a_refusal_is_final_or_worth_another_try(name, outcome):
    assert outcome_of_puback(ReasonCode(PacketTypes.PUBACK, name).value) is outcome


def test_every_failure_that_a_puback_may_carry_is_in_the_table():
    failures = {
        code
        for code, names in ReasonCode.names.items()
        if code >= 0x80 and any(PacketTypes.PUBACK in packets for packets in names.values())
    }
    assert set(PUBACK_REFUSALS) == failures


def test_a_code_of_a_later_protocol_is_worth_another_try():
    assert outcome_of_puback(0xFE) is PublishOutcome.RETRY


def test_nobody_can_subscribe_at_qos_2():
    with pytest.raises(ValueError, match="QoS 0 or 1"):
        Subscription("a/b", 2)


def test_a_shared_subscription_is_recognised():
    assert Subscription("$share/g/a/#").shared
    assert not Subscription("a/$share/b").shared


def test_a_denied_publish_names_its_topic():
    assert PublishDenied("a/b").topic == "a/b"
    assert "'a/b'" in str(PublishDenied("a/b"))
