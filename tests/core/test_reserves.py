"""The promise of `core/reserves.py`: any ten minutes in which a class waits give it its share."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.reserves import Reserves, choose_class

INTERACTIVE, NORMAL, BACKGROUND = Priority


def flood(length_s, slices, waits, seconds=1800.0, start=0.0, reserves=None):
    """Play a slot in which interactive jobs of `length_s` never end, and lower ones run for their slices."""
    reserves, now, ran = reserves or Reserves(), start, []
    while now < start + seconds:
        reserves.advance(now, waits, None)
        priority = choose_class(waits, reserves.owed())
        spent = length_s if priority is INTERACTIVE else slices[priority]
        reserves.advance(now, waits, priority)
        if priority is not INTERACTIVE:  # protected while its share is at risk
            while True:
                reserves.advance(now + spent, waits, priority)
                if not reserves.is_at_risk(priority):
                    break
                spent += 0.1
        ran.append((now, now + spent, priority))
        now += spent
    return ran


def share(ran, priority, since, until):
    return sum(
        max(0.0, min(end, until) - max(begin, since)) for begin, end, who in ran if who is priority
    ) / (until - since)


@settings(max_examples=15)
@given(
    st.floats(0.2, 40.0),
    st.floats(0.5, 5.0),
    st.floats(0.5, 5.0),
    st.floats(0, 1100),
)
def test_any_ten_minutes_of_a_flood_leave_the_lower_classes_their_share(length, normal, background, since):
    ran = flood(length, {NORMAL: normal, BACKGROUND: background}, (True, True, True))
    assert share(ran, NORMAL, since, since + 600) >= 0.15
    assert share(ran, BACKGROUND, since, since + 600) >= 0.05


def test_background_keeps_its_share_beside_normal_work_and_takes_little_more():
    ran = flood(2.0, {NORMAL: 1.3, BACKGROUND: 1.3}, (False, True, True))
    assert 0.05 <= share(ran, BACKGROUND, 0, 600) <= 0.08


def test_while_the_voice_speaks_in_short_answers_no_slice_is_longer_than_its_tokens():
    ran = flood(4.0, {NORMAL: 1.3, BACKGROUND: 1.3}, (True, True, True))
    assert max(end - begin for begin, end, who in ran if who is not INTERACTIVE) == pytest.approx(1.3)


def test_who_had_the_slot_for_an_hour_is_owed_again_within_a_minute():
    reserves = Reserves()
    reserves.advance(0.0, (False, True, False), NORMAL)
    reserves.advance(3600.0, (True, True, False), INTERACTIVE)
    ran = flood(2.0, {NORMAL: 1.3}, (True, True, False), start=3600.0, reserves=reserves)
    assert share(ran, NORMAL, 3600, 4200) >= 0.15


def test_the_voice_is_not_disturbed_in_its_first_half_minute():
    ran = flood(2.0, {NORMAL: 1.3, BACKGROUND: 1.3}, (True, True, True), seconds=30.0)
    assert {who for _, _, who in ran} == {INTERACTIVE}


def test_a_class_that_does_not_wait_is_owed_nothing_and_what_it_was_owed_fades():
    reserves = Reserves()
    reserves.advance(0.0, (True, True, False), INTERACTIVE)
    reserves.advance(100.0, (True, False, False), INTERACTIVE)
    assert reserves.owed() == (False, True, False)
    reserves.advance(700.0, (True, True, False), INTERACTIVE)
    assert reserves.owed() == (False, False, False)


def test_a_clock_that_stands_still_or_steps_back_owes_nobody_anything():
    reserves = Reserves()
    for now in (100.0, 100.0, 50.0):
        reserves.advance(now, (True, True, True), INTERACTIVE)
    assert reserves.debts_s == [0.0, 0.0, 0.0]


def test_the_share_is_of_the_window_that_is_set():
    reserves = Reserves(window_s=60.0)
    reserves.advance(0.0, (True, True, False), INTERACTIVE)
    reserves.advance(3.2, (True, True, False), INTERACTIVE)
    assert not reserves.owes(NORMAL)
    reserves.advance(3.5, (True, True, False), INTERACTIVE)
    assert reserves.owes(NORMAL)


@pytest.mark.parametrize(
    ("waits", "owed", "chosen"),
    [
        ((True, True, True), (False, False, False), INTERACTIVE),
        ((True, True, True), (False, True, True), NORMAL),
        ((True, False, True), (False, True, True), BACKGROUND),
        ((False, True, True), (False, False, True), BACKGROUND),
        ((False, True, True), (False, False, False), NORMAL),
        ((False, False, False), (False, True, True), None),
    ],
)
def test_the_highest_class_that_is_owed_goes_first_else_the_highest_that_waits(waits, owed, chosen):
    assert choose_class(waits, owed) is chosen
