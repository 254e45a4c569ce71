"""The send window: order, bound, and exactly one outcome for each message."""

import asyncio

from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome
from rkllm_mqtt.mqtt.window import Window


def filled(window: Window, count: int) -> list[asyncio.Future]:
    outcomes = [asyncio.get_running_loop().create_future() for _ in range(count)]
    for number, outcome in enumerate(outcomes):
        window.submit(Outbound(f"t/{number}", b"", 1), outcome)
    return outcomes


def send_all(window: Window, first_mid: int = 1) -> list[str]:
    topics = []
    while (pending := window.next()) is not None:
        window.sent(first_mid + len(topics), pending)
        topics.append(pending.message.topic)
    return topics


def test_messages_leave_in_order_and_no_more_than_the_limit_are_under_way(run):
    async def scenario():
        window = Window(2)
        filled(window, 4)
        assert send_all(window) == ["t/0", "t/1"]
        assert (window.waiting, window.under_way) == (2, 2)
        window.settle(2, PublishOutcome.DELIVERED)
        assert send_all(window, 3) == ["t/2"]

    run(scenario())


def test_each_message_gets_the_outcome_of_its_own_puback(run):
    async def scenario():
        window = Window(9)
        first, second = filled(window, 2)
        send_all(window)
        window.settle(2, PublishOutcome.REFUSED)
        window.settle(2, PublishOutcome.DELIVERED)
        window.settle(99, PublishOutcome.DELIVERED)
        assert not first.done()
        assert await second is PublishOutcome.REFUSED

    run(scenario())


def test_after_a_lost_session_what_was_under_way_leaves_first_and_once(run):
    async def scenario():
        window = Window(2)
        outcomes = filled(window, 3)
        send_all(window)
        window.settle(1, PublishOutcome.DELIVERED)
        send_all(window, 7)
        window.send_again()
        assert window.under_way == 0
        assert send_all(window, 1) == ["t/1", "t/2"]
        window.settle(1, PublishOutcome.DELIVERED)
        assert [outcome.done() for outcome in outcomes] == [True, True, False]

    run(scenario())


def test_a_message_whose_publisher_turned_away_is_not_sent(run):
    async def scenario():
        window = Window(9)
        first, _ = filled(window, 2)
        first.cancel()
        assert send_all(window) == ["t/1"]

    run(scenario())


def test_a_publisher_that_turned_away_while_its_message_was_under_way_is_not_told(run):
    async def scenario():
        window = Window(9)
        (outcome,) = filled(window, 1)
        send_all(window)
        outcome.cancel()
        window.settle(1, PublishOutcome.DELIVERED)
        assert outcome.cancelled()

    run(scenario())


def test_published_says_below_which_ordinal_everything_was_sent(run):
    async def scenario():
        window = Window(2)
        assert (window.submitted, window.published) == (0, 0)
        filled(window, 3)
        assert (window.submitted, window.published) == (3, 0)
        send_all(window)
        assert window.published == 2
        window.settle(1, PublishOutcome.DELIVERED)
        send_all(window, 3)
        assert window.published == 3

    run(scenario())


def test_abandoned_messages_are_to_be_tried_again_by_their_publishers(run):
    async def scenario():
        window = Window(1)
        outcomes = filled(window, 2)
        send_all(window)
        window.abandon()
        assert [await outcome for outcome in outcomes] == [PublishOutcome.RETRY] * 2
        assert (window.waiting, window.under_way) == (0, 0)

    run(scenario())
