"""PUBACKs leave in order of receipt, once, for the message they were meant for, and not too early."""

from msgspec.structs import replace

from rkllm_mqtt.mqtt.acks import AckQueue
from rkllm_mqtt.mqtt.messages import Inbound


def message(mid: int, payload: bytes = b"") -> Inbound:
    return Inbound("t", payload, 1, False, False, mid, None, None, None, None, (), 1, "s")


def released(queue: AckQueue, published: int = 0) -> list[int]:
    return [inbound.mid for inbound in queue.release(published)]


def test_acks_leave_in_the_order_of_receipt():
    queue, (first, second, third) = AckQueue(), (message(7), message(3), message(5))
    for inbound in (first, second, third):
        queue.received(inbound)
    queue.acknowledge(third)
    queue.acknowledge(second)
    assert released(queue) == []
    queue.acknowledge(first)
    assert released(queue) == [7, 3, 5]
    assert len(queue) == 0


def test_a_second_ack_of_a_message_does_nothing():
    queue, first = AckQueue(), message(7)
    queue.received(first)
    assert queue.acknowledge(first)
    assert not queue.acknowledge(first)
    assert released(queue) == [7]
    assert not queue.acknowledge(first)


def test_a_late_ack_does_not_acknowledge_the_message_that_has_the_number_now():
    queue, old = AckQueue(), message(7, b"old")
    queue.received(old)
    queue.acknowledge(old)
    assert released(queue) == [7]
    new = message(7, b"new")
    queue.received(new)
    assert not queue.acknowledge(old)
    assert not queue.acknowledge(replace(new))
    assert released(queue) == []


def test_a_repeat_on_the_same_connection_is_acknowledged_once():
    queue, first = AckQueue(), message(7)
    queue.received(first)
    again = replace(first, dup=True)
    queue.received(again)
    assert not queue.acknowledge(first)
    assert queue.acknowledge(again)
    assert released(queue) == [7]


def test_an_ack_waits_for_what_was_published_before_it():
    queue, first, second = AckQueue(), message(1), message(2)
    queue.received(first)
    queue.received(second)
    queue.acknowledge(first, fence=3)
    queue.acknowledge(second, fence=1)
    assert released(queue, published=2) == []
    assert released(queue, published=3) == [1, 2]
