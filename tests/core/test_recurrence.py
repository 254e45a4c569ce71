"""The promise of `core/recurrence.py`: each time once, whatever the clock and the daemon did meanwhile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.recurrence import Due, Recurrence

HOUR = 3600.0


def every(seconds, **options):
    return Recurrence("r", lambda after: (after // seconds + 1) * seconds, **{"grace_s": HOUR} | options)


def test_a_time_is_due_from_its_second_on_and_then_dealt_with():
    minute = every(60)
    assert minute.due(600, 659.9) == Due((), 600)
    assert minute.due(600, 660) == Due((660.0,), 660.0)
    assert minute.due(660, 660) == Due((), 660)
    assert minute.next_at(660, 660) == 720


def test_of_missed_times_the_newest_is_asked_or_each():
    assert every(60).due(600, 800) == Due((780.0,), 780.0, missed=2)
    assert every(60, coalesce=False).due(600, 800) == Due((660.0, 720.0, 780.0), 780.0)


def test_what_is_older_than_the_grace_is_let_go():
    assert every(600, grace_s=100).due(0, 1_350) == Due((), 0)
    assert every(600, grace_s=200).due(0, 1_350) == Due((1200.0,), 1200.0)
    assert every(600, grace_s=100).next_at(0, 1_350) == 1_800


def test_a_clock_that_is_set_back_makes_the_present_the_beginning():
    minute = every(60)
    assert minute.due(7_200, 3_600) == Due((), 3_600)
    assert minute.due(3_600, 3_660) == Due((3660.0,), 3660.0)


def test_what_has_no_next_time_is_never_due():
    once = Recurrence("r", lambda after: 500.0 if after < 500 else None, grace_s=HOUR)
    assert once.due(0, 600) == Due((500.0,), 500.0)
    assert once.due(500, 10_000) == Due((), 500)
    assert once.next_at(500, 600) is None


@given(time=st.floats(0, 4e9), jitter=st.floats(0, 3600))
def test_a_delay_lies_within_the_jitter_and_is_the_same_each_time(time, jitter):
    recurrence = every(60, jitter_s=jitter)
    assert 0 <= recurrence.delay_s(time) <= jitter
    assert recurrence.delay_s(time) == recurrence.delay_s(time)


def test_delays_differ_from_time_to_time_and_from_name_to_name():
    other = Recurrence("other", lambda after: after + 1, HOUR, jitter_s=60)
    delays = {every(60, jitter_s=60).delay_s(60.0 * n) for n in range(20)} | {other.delay_s(0)}
    assert len(delays) == 21


def test_with_a_delay_a_time_is_due_later_and_still_once():
    minute = every(60, jitter_s=30)
    delay = minute.delay_s(660.0)
    assert minute.due(600, 660 + delay - 0.01).times == ()
    assert minute.due(600, 660 + delay).times == (660.0,)
    assert minute.next_at(600, 601) == pytest.approx(660 + delay)


@given(st.lists(st.floats(-HOUR / 2, HOUR / 2), min_size=1, max_size=60), st.booleans())
def test_while_the_clock_jumps_about_no_time_in_its_future_is_asked_and_forward_steps_lose_none(
    steps, coalesce
):
    recurrence = every(60, coalesce=coalesce, grace_s=2 * HOUR)
    now = last = 1_000_000.0
    for step in steps:
        before, now = now, now + step
        due = recurrence.due(last, now)
        assert all(time <= now for time in due.times)
        if step >= 0 and last <= before and now // 60 > before // 60:
            assert due.times[-1] == now // 60 * 60
            assert len(due.times) + due.missed == now // 60 - last // 60
        last = due.last
        assert last <= now
