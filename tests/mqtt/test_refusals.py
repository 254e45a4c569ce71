"""The promise of `mqtt/refusals.py`: what is refused is known, and forgotten when it works or is old."""

from rkllm_mqtt.mqtt.messages import PublishOutcome
from rkllm_mqtt.mqtt.refusals import REMEMBERED_S, Refusals

REFUSED, DELIVERED = PublishOutcome.REFUSED, PublishOutcome.DELIVERED


def test_a_refusal_is_news_once_and_gone_when_the_topic_works():
    refusals = Refusals()
    assert refusals.settled("a", REFUSED, 0.0)
    assert not refusals.settled("a", REFUSED, 5.0)
    refusals.settled("b", REFUSED, 6.0)
    refusals.settled("c", DELIVERED, 6.0)
    refusals.settled("b", PublishOutcome.RETRY, 6.0)
    assert refusals.topics(7.0) == ("a",)
    refusals.settled("a", DELIVERED, 8.0)
    assert refusals.topics(8.0) == ()


def test_a_refusal_that_does_not_happen_again_is_forgotten_and_news_the_next_time():
    refusals = Refusals()
    refusals.settled("reply/1", REFUSED, 0.0)
    refusals.settled("status", REFUSED, 0.0)
    refusals.settled("status", REFUSED, REMEMBERED_S)
    assert refusals.topics(REMEMBERED_S) == ("reply/1", "status")
    assert refusals.topics(REMEMBERED_S + 1) == ("status",)
    assert refusals.settled("reply/1", REFUSED, REMEMBERED_S + 1)


def test_a_thousand_refused_topics_are_not_all_kept():
    refusals = Refusals()
    for number in range(1_000):
        refusals.settled(f"t/{number}", REFUSED, 0.0)
    assert refusals.topics(0.0) == tuple(f"t/{number}" for number in range(968, 1_000))
