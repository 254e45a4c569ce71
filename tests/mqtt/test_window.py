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


# a message that costs the connection


def send(window: Window, now: float, first_mid: int = 1) -> list[str]:
    """Send what may be sent, as a new connection to a session that knows nothing does."""
    window.send_again()
    topics = []
    while (pending := window.next()) is not None:
        window.sent(first_mid + len(topics), pending, now)
        topics.append(pending.message.topic)
    return topics


def test_the_one_message_that_ends_each_connection_is_given_up_and_no_other(run):
    """The broker takes all but `t/2`, and closes over it before it has acknowledged what is with it."""

    async def scenario():
        window = Window(9)
        outcomes = filled(window, 5)
        given_up, losses, now = [], 0, 0.0
        while not outcomes[4].done():
            mid = 1
            topics = send(window, now)
            while topics:
                if "t/2" in topics:
                    losses += 1
                    message = window.lost(now + 0.1)
                    given_up += [message.topic] if message else []
                    break
                window.settle(mid, PublishOutcome.DELIVERED)
                topics, mid = [], mid + 1
                while (pending := window.next()) is not None:
                    window.sent(mid, pending, now)
                    topics.append(pending.message.topic)
            now += 60
            assert losses < 10
        assert given_up == ["t/2"]
        assert losses == 2 + 3
        assert [outcome.result() for outcome in outcomes] == [
            PublishOutcome.REFUSED if number == 2 else PublishOutcome.DELIVERED for number in range(5)
        ]
        assert window.limit == 9

    run(scenario())


def test_losses_long_after_a_message_are_not_its_fault(run):
    async def scenario():
        window = Window(9)
        (outcome,) = filled(window, 1)
        for now in range(0, 1000, 100):
            send(window, now)
            assert window.lost(now + 2.1) is None
        assert not outcome.done()
        assert window.limit == 9

    run(scenario())


def test_losses_that_are_not_in_a_row_give_up_nothing(run):
    async def scenario():
        window = Window(9)
        (outcome,) = filled(window, 1)
        for now in range(0, 1000, 100):
            send(window, now)
            assert window.lost(now + (30 if now % 300 == 200 else 0.1)) is None
        assert not outcome.done()

    run(scenario())


def test_a_connection_that_lasts_ends_the_suspicion(run):
    async def scenario():
        window = Window(9)
        filled(window, 3)
        for now in (0, 100):
            assert len(send(window, now)) == 3
            window.lost(now + 0.1)
        assert len(send(window, 200)) == 1
        window.steady()
        assert len(send(window, 200)) == 3

    run(scenario())
