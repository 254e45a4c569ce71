"""A figure knows whether its goal is met, and a percentile is a value that was observed."""

import pytest

from bench.figure import Figure, Goal, median, percentile, shown


@pytest.mark.parametrize(
    ("side", "below", "same", "more"),
    [("at most", True, True, False), ("at least", False, True, True), ("above", False, False, True)],
)
def test_a_goal_has_a_side(side, below, same, more):
    met = [Figure("f", value, goal=Goal(2.0, side)).is_met for value in (1.9, 2.0, 2.1)]
    assert met == [below, same, more]


def test_without_a_goal_or_a_value_nothing_is_met_or_missed():
    assert Figure("f", 1.0).is_met is None
    assert Figure("f", None, goal=Goal(1)).is_met is None


def test_percentiles_are_values_that_were_observed():
    values = [float(n) for n in range(100, 0, -1)]
    assert (median(values), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([7.0], 99) == 7
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_a_ratio_shows_the_digits_that_its_goal_is_about():
    assert shown(1.00287, "x") == "1.0029"
    assert shown(52345.6, "tokens/s") == "52,346 tokens/s"
    assert shown(0.0712, "%") == "0.07 %"
    assert shown(None, "ms") == "-"
