"""The promise of `core/pace.py`: estimates that follow the real runs and never fall below what was seen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.pace import Pace, common_prefix, percentile


def naive_prefix(a, b):
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count


@given(st.text("ab", max_size=40), st.text("ab", max_size=40))
def test_the_common_prefix_is_what_a_loop_would_count(a, b):
    assert common_prefix(a, b) == naive_prefix(a, b)


@given(st.text("ab🙂", max_size=60), st.text("abc", max_size=20), st.text("xyz", max_size=20))
def test_texts_that_part_somewhere_have_the_shared_beginning_in_common(shared, one, other):
    assert common_prefix(shared + one, shared + other) == len(shared) + naive_prefix(one, other)


def test_before_the_first_run_the_prediction_is_as_slow_as_the_slowest_board_measured():
    pace = Pace()
    assert pace.tokens_of(12_000) == 4_000
    assert pace.prefill_s(12_000) == pytest.approx(64.0)
    assert pace.first_token_limit_s(12_000, 5) == pytest.approx(133.0)


def test_no_prompt_needs_no_time_but_the_margin():
    assert Pace().first_token_limit_s(0, 5) == 5


def test_a_cold_prefill_teaches_the_rate_and_the_length_of_a_token():
    pace = Pace()
    pace.learn_prefill(400, 100, 392.0, cold=True)
    assert pace.prefill_ms_per_token == pytest.approx(3.92)
    assert pace.chars_per_token == pytest.approx(4.0)
    assert pace.tokens_of(800) == 200
    assert pace.prefill_s(800) == pytest.approx(0.784)


def test_a_prefill_on_a_cached_prefix_says_nothing_about_the_length_of_a_token():
    pace = Pace()
    pace.learn_prefill(4_000, 20, 200.0, cold=False)
    assert pace.chars_per_token is None
    assert pace.prefill_ms_per_token == pytest.approx(10.0)


def test_a_few_tokens_measure_the_floor_and_teach_no_rate():
    pace = Pace()
    pace.learn_prefill(45, 15, 97.0, cold=True)
    assert pace.prefill_ms_per_token is None
    assert pace.chars_per_token == pytest.approx(3.0)
    pace.learn_prefill(1_000, 7, 97.0, cold=True)
    assert pace.chars_per_token == pytest.approx(3.0)


def test_a_slower_prefill_counts_at_once_and_a_faster_one_slowly():
    pace = Pace()
    pace.learn_prefill(300, 100, 400.0, cold=True)
    pace.learn_prefill(300, 100, 1_000.0, cold=True)
    assert pace.prefill_ms_per_token == pytest.approx(10.0)
    pace.learn_prefill(300, 100, 500.0, cold=True)
    assert pace.prefill_ms_per_token == pytest.approx(9.0)


@given(st.lists(st.tuples(st.integers(16, 4_000), st.floats(1.0, 100_000.0)), min_size=1, max_size=20))
def test_the_watch_is_never_faster_than_the_newest_prefill(prefills):
    pace = Pace()
    for tokens, prefill_ms in prefills:
        pace.learn_prefill(tokens * 3, tokens, prefill_ms, cold=False)
        assert pace.prefill_ms_per_token * tokens >= prefill_ms * (1 - 1e-9)


def test_runs_teach_their_mean_duration_and_the_last_hundred_rates():
    pace = Pace()
    pace.learn_run(10.0, 300.0, 15.0)
    pace.learn_run(20.0, None, None)
    assert pace.run_s == pytest.approx(12.0)
    for number in range(200):
        pace.learn_run(1.0, float(number), float(number))
    assert list(pace.ttft_ms) == list(pace.tokens_per_s) == [float(n) for n in range(100, 200)]


def test_of_nothing_there_is_no_percentile():
    assert percentile([], 0.5) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_has_the_share_below_it(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= min(len(values), math.floor(share * len(values)) + 1)
    assert sum(value < found for value in values) <= share * len(values)
