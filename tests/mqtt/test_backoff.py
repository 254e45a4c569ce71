"""The pause before the next attempt grows, jitters, and knows a take-over."""

from rkllm_mqtt.mqtt.backoff import LASTING_S, QUICK_LOSSES, BackOff


def pauses(backoff: BackOff, count: int) -> list[float]:
    return [backoff.pause_s(taken_over=False) for _ in range(count)]


def test_the_ceiling_doubles_from_one_second_to_the_longest():
    assert pauses(BackOff(60, chance=lambda: 1.0), 8) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_pause_is_spread_over_the_whole_range():
    assert pauses(BackOff(60, chance=lambda: 0.0), 3) == [0, 0, 0]


def test_a_short_longest_pause_holds_from_the_start():
    assert pauses(BackOff(0.2, chance=lambda: 1.0), 2) == [0.2, 0.2]


def test_a_hundred_thousand_failures_do_not_overflow():
    backoff = BackOff(60, chance=lambda: 1.0)
    assert pauses(backoff, 100_000)[-1] == 60


def test_a_connection_that_lasted_starts_afresh_and_a_quick_loss_does_not():
    backoff = BackOff(60, chance=lambda: 1.0)
    pauses(backoff, 3)
    backoff.lost(LASTING_S / 2)
    assert pauses(backoff, 1) == [8]
    backoff.lost(LASTING_S)
    assert pauses(backoff, 1) == [1]


def test_after_a_take_over_the_pause_is_at_least_half_of_the_longest():
    assert BackOff(60, chance=lambda: 0.0).pause_s(taken_over=True) == 30
    assert BackOff(60, chance=lambda: 1.0).pause_s(taken_over=True) == 60


def test_quick_losses_in_a_row_look_unsteady_until_a_connection_lasts():
    backoff = BackOff(60)
    for _ in range(QUICK_LOSSES - 1):
        backoff.lost(0.1)
    assert not backoff.unsteady
    backoff.lost(0.1)
    assert backoff.unsteady
    backoff.lasting()
    assert not backoff.unsteady
