"""The promise of `runtime/arrays.py`: probabilities and vectors as the arithmetic says, or a reason."""

import math

import numpy
import pytest

from rkllm_mqtt.runtime.arrays import Unreadable, log_probabilities, pooled


def test_log_probabilities_are_those_of_the_softmax():
    row = numpy.array([math.log(1), math.log(2), math.log(5)], dtype=numpy.float32)
    assert [math.exp(log) for log in log_probabilities(row, [2, 0, 1])] == pytest.approx([0.625, 0.125, 0.25])


def test_large_logits_do_not_overflow():
    row = numpy.array([3e38, 0, -3e38], dtype=numpy.float32)
    assert log_probabilities(row, [0]) == [0.0]
    assert log_probabilities(row, [2])[0] < -1e8


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]])
def test_a_row_that_holds_no_numbers_is_told(bad):
    with pytest.raises(Unreadable):
        log_probabilities(numpy.array(bad, dtype=numpy.float32), [0])


@pytest.mark.parametrize("token", [3, -1])
def test_a_token_beyond_the_vocabulary_is_told(token):
    with pytest.raises(Unreadable, match="3 tokens"):
        log_probabilities(numpy.zeros(3, dtype=numpy.float32), [token])


ROWS = numpy.array([[3, 4], [1, 0], [0, 5]], dtype=numpy.float32)


@pytest.mark.parametrize(
    ("pooling", "expected"), [("cls", [0.6, 0.8]), ("last", [0.0, 1.0]), ("mean", [0.4061385, 0.9138115])]
)
def test_the_vector_of_a_text_is_pooled_and_has_length_one(pooling, expected):
    assert pooled(ROWS, pooling) == pytest.approx(expected, abs=1e-6)


def test_a_vector_of_zeros_stays_one():
    assert pooled(numpy.zeros((2, 3), dtype=numpy.float32), "mean") == [0, 0, 0]


def test_hidden_states_that_are_no_numbers_are_told():
    with pytest.raises(Unreadable):
        pooled(numpy.array([[math.nan, 1.0]], dtype=numpy.float32), "mean")
