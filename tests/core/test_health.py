"""The promise of `core/health.py`: one word, and it is the worst of the reasons."""

import pytest

from rkllm_mqtt.core.health import Reason, assess, packets_small, publish_refused, subscription_refused

MINOR = Reason("disk_low", "only 120 MB are free", "Free some space.")
SERIOUS = Reason("journal", "the disk is full", serious=True)


@pytest.mark.parametrize(
    ("reasons", "word"),
    [
        ([], "healthy"),
        ([MINOR], "degraded"),
        ([MINOR, MINOR], "degraded"),
        ([SERIOUS], "unhealthy"),
        ([MINOR, SERIOUS], "unhealthy"),
        ([SERIOUS, MINOR], "unhealthy"),
    ],
)
def test_the_word_is_the_worst_of_the_reasons(reasons, word):
    assert assess(reasons) == word


def test_a_reason_is_shown_as_code_message_and_hint_and_nothing_else():
    assert list(MINOR.members().items()) == [
        ("code", "disk_low"),
        ("message", "only 120 MB are free"),
        ("hint", "Free some space."),
    ]
    assert SERIOUS.members() == {"code": "journal", "message": "the disk is full", "hint": ""}


def test_a_forbidden_mailbox_degrades_and_a_forbidden_topic_of_our_own_is_serious():
    mailbox = publish_refused(["rkllm/n/client/+/reply", "rkllm/n/client/+/reply"])
    assert (mailbox.code, mailbox.serious) == ("publish_refused", False)
    assert mailbox.message.count("rkllm/n/client/+/reply") == 1
    whole = publish_refused(["a/client/+/b", "a/info", "a/queue", "a/health", "a/stats"])
    assert whole.serious
    assert whole.message.endswith("a/client/+/b, a/info, a/queue and 2 more")


def test_a_refused_subscription_is_serious_unless_only_groups_are_concerned():
    assert subscription_refused(["rkllm/n/status", "$share/g/x", "rkllm/n/x"]).serious
    assert "rkllm/n/status and 1 more" in subscription_refused(["rkllm/n/status", "rkllm/n/x"]).message
    groups = subscription_refused(["$share/fleet/rkllm/fleet/client/+/request/#"])
    assert (groups.code, groups.serious) == ("groups_inactive", False)


def test_a_broker_of_small_packets_is_named_with_its_limit():
    assert packets_small(900).code == "packets_small"
    assert "900 bytes" in packets_small(900).message
    assert not packets_small(900).serious
