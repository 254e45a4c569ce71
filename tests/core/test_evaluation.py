"""The promise of `core/evaluation.py`: the options share 1, each by what the model makes of it alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.evaluation import LEAST_LOG, weigh


def shares(tokens, chances):
    return [one.probability for one in weigh(tokens, [math.log(chance) for chance in chances])]


def test_what_the_model_would_say_besides_does_not_count():
    assert shares([[1], [2]], [0.03, 0.01]) == pytest.approx([0.75, 0.25])


def test_an_option_that_begins_another_has_only_what_is_not_the_others():
    # "no" is 0.6, of which 0.4 goes on as "no way".
    assert shares([[1], [1, 2], [3]], [0.6, 0.4, 0.2]) == pytest.approx([0.25, 0.5, 0.25])


def test_what_goes_on_twice_is_taken_once():
    weights = shares([[1], [1, 2], [1, 2, 3], [9]], [0.8, 0.6, 0.5, 0.2])
    assert weights == pytest.approx([0.2, 0.1, 0.5, 0.2])


def test_the_log_probability_is_of_the_whole_vocabulary():
    one, other = weigh([[1], [2]], [math.log(0.03), math.log(0.01)])
    assert (one.log_probability, other.log_probability) == pytest.approx((math.log(0.03), math.log(0.01)))


@given(st.lists(st.floats(-1e9, 0), min_size=2, max_size=8))
def test_any_logs_give_shares_of_one(logs):
    weights = weigh([[n] for n in range(len(logs))], logs)
    assert sum(one.probability for one in weights) == pytest.approx(1)
    assert all(LEAST_LOG <= one.log_probability <= 0 and 0 <= one.probability <= 1 for one in weights)


@given(st.floats(0, 1))
def test_an_option_that_always_goes_on_is_next_to_nothing(rest):
    short, longer = weigh([[1], [1, 2]], [math.log(0.5), math.log(0.5) + rest])
    assert longer.probability > 0.999
    assert math.isfinite(short.log_probability)
