"""The promise of `core/rates.py`: thirty runs correct a wrong belief, and one strange run moves nothing."""

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rkllm_mqtt.core.rates import Rates
from rkllm_mqtt.core.seeds import seed_from

TRUE = seed_from(378.31, 16.69)


def first_token_ms(cached, uncached):
    return TRUE.floor_ms + TRUE.prefill_ms * uncached + TRUE.attention_ms * uncached * (cached + uncached / 2)


def taught(seed, runs, *, chance=1, strange=None):
    """Rates that have seen so many runs with 3 % of noise; a strange one takes five times as long."""
    rates, rng = Rates(seed), random.Random(chance)
    for number in range(runs):
        cached = rng.choice([0, 0, rng.randrange(1500)])
        uncached = rng.randrange(5, 1500 if rng.random() < 0.3 else 200)
        tokens = rng.randrange(10, 200)
        slow = (5 if number == strange else 1) * rng.uniform(0.97, 1.03)
        rates.learn_first_token(cached, uncached, first_token_ms(cached, uncached) * slow)
        context = cached + uncached
        rates.learn_steps(context, tokens, TRUE.step_at(context + tokens / 2) * tokens * slow)
        rates.runs += 1
    return rates


JOBS = [(0, 20, 50), (0, 100, 100), (0, 700, 50), (700, 20, 50), (300, 300, 10)]


@settings(max_examples=30)
@given(st.sampled_from([1 / 3, 1.0, 3.0]), st.integers(0, 1000), st.sampled_from([None, 0, 14, 29]))
def test_rates_that_are_wrong_by_three_are_right_after_thirty_runs(wrong, chance, strange):
    members = ("floor_ms", "prefill_ms", "attention_ms", "step_ms", "step_slope_ms")
    believed = replace(TRUE, **{name: getattr(TRUE, name) * wrong for name in members})
    rates = taught(believed, 30, chance=chance, strange=strange)
    for cached, uncached, tokens in JOBS:
        prompt = cached + uncached
        true_s = (first_token_ms(cached, uncached) + TRUE.step_at(prompt + tokens / 2) * tokens) / 1000
        assert rates.slot_s(prompt, cached, tokens) == pytest.approx(true_s, rel=0.15)


def test_parts_that_are_wrong_in_opposite_ways_are_told_apart():
    believed = replace(TRUE, floor_ms=TRUE.floor_ms * 3, prefill_ms=TRUE.prefill_ms / 3)
    rates = taught(believed, 30)
    assert rates.first_token_s(0) * 1000 == pytest.approx(TRUE.floor_ms, rel=0.15)
    assert rates.first_token_s(1000) * 1000 == pytest.approx(first_token_ms(0, 1000), rel=0.15)


def test_one_run_already_tells_how_fast_the_board_is():
    rates = Rates(TRUE)
    rates.learn_first_token(0, 100, 2 * first_token_ms(0, 100))
    rates.learn_steps(100, 50, 2 * 50 * TRUE.step_at(125))
    assert rates.first_token_s(500) * 1000 == pytest.approx(2 * first_token_ms(0, 500), rel=0.05)
    assert rates.step_s(3000) * 1000 == pytest.approx(2 * TRUE.step_at(3000), rel=0.01)


def test_a_board_that_became_slower_is_learned_again():
    rates = taught(TRUE, 60)
    for _ in range(48):
        rates.learn_first_token(0, 100, 2 * first_token_ms(0, 100))
        rates.learn_steps(100, 50, 2 * 50 * TRUE.step_at(125))
    assert rates.slot_s(100, 0, 50) * 1000 == pytest.approx(
        2 * (first_token_ms(0, 100) + 50 * TRUE.step_at(125)), rel=0.05
    )


def test_the_same_prompt_again_and_again_gives_no_absurd_rates():
    rates = Rates(TRUE)
    for _ in range(40):
        rates.learn_first_token(0, 50, first_token_ms(0, 50))
    for uncached in (1, 50, 2000):
        assert rates.first_token_s(uncached) * 1000 == pytest.approx(first_token_ms(0, uncached), rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000), st.floats(0, 1e6)), max_size=60))
@example([(0, 0, 363014.0), (0, 309, 0.0078125)])
def test_whatever_was_seen_more_tokens_never_take_less_time(seen):
    rates = Rates(TRUE)
    for cached, uncached, ms in seen:
        rates.learn_first_token(cached, uncached, ms)
        rates.learn_steps(cached, uncached, ms)
    assert 0 < rates.first_token_s(0) <= rates.first_token_s(10) <= rates.first_token_s(10, 1000)
    assert 0 < rates.slot_s(100, 50, 10) < rates.slot_s(100, 50, 20)


def test_what_was_learned_survives_a_restart_and_nonsense_is_ignored():
    rates = taught(replace(TRUE, floor_ms=900.0), 30)
    again = Rates(TRUE)
    again.resume(json.loads(json.dumps(rates.to_json())))
    assert again.runs == 30
    assert again.slot_s(500, 100, 60) == pytest.approx(rates.slot_s(500, 100, 60), rel=0.02)
    for nonsense in (
        {},
        {"runs": 1},
        {"runs": "x", "prefills": [], "steps": []},
        {"prefills": [[1]], "steps": []},
    ):
        again.resume(nonsense)
    assert again.runs == 30


def test_what_is_settled_is_what_would_be_worked_out_when_asked():
    settled, asked = Rates(TRUE), Rates(TRUE)
    for n in range(1, 20):
        for rates in (settled, asked):
            rates.learn_first_token(0, 100 * n, 30.0 + 7.0 * n)
            rates.learn_steps(100 * n, 50, 50 * 90.0)
        settled.settle()
    asked_for = [(rates.first_token_s(700), rates.step_s(700)) for rates in (settled, asked)]
    assert asked_for[0] == pytest.approx(asked_for[1], rel=0.02)
