"""The promise of `core/worth.py`: a restore is never worse than computing, a save brings its costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.rates import Rates
from rkllm_mqtt.core.seeds import Seed, seed_of
from rkllm_mqtt.core.worth import Plan, plan_of, restore_gain_s

QWEN = Rates(seed_of("qwen2.5-1.5b"))
TOKENS = st.integers(0, 4000)


@given(TOKENS, TOKENS, TOKENS, st.floats(0, 20))
def test_what_is_restored_is_at_least_a_tenth_faster_than_what_would_be_computed(
    prompt, cached, held, load_s
):
    cached, held = min(cached, prompt), min(held, prompt)
    gain = restore_gain_s(QWEN, prompt, cached, held, load_s)
    computing = QWEN.first_token_s(prompt - cached, cached)
    restoring = load_s + QWEN.first_token_s(prompt - held, held)
    assert gain == 0 or restoring < 0.9 * computing


@pytest.mark.parametrize(
    ("cached", "load_s", "pays"),
    [(0, 0.1, True), (0, 60, False), (1480, 0.1, False), (1400, 0.1, True)],
)
def test_a_file_of_a_long_beginning_is_loaded_where_little_of_it_is_cached_and_the_disk_is_fast(
    cached, load_s, pays
):
    assert bool(restore_gain_s(QWEN, 1500, cached, 1480, load_s)) is pays


def plan(tokens=1500, *, covered=0, chance=0.5, left=0, load=0.00007, save=0.0002):
    return plan_of(
        QWEN,
        tokens,
        covered,
        chance=chance,
        left=left,
        load_s=lambda n: n * load,
        save_s=lambda n: n * save,
    )


def test_a_long_conversation_is_saved_in_an_idle_slot_and_in_front_of_foreign_work():
    assert plan().pays(in_front=False)
    assert plan().pays(in_front=True)


@pytest.mark.parametrize(
    "changed",
    [{"chance": 0.02}, {"tokens": 64}, {"covered": 1490}, {"save": 0.01}, {"left": 1500}],
    ids=["nobody comes back", "short", "saved already", "slow disk", "not in the cache"],
)
def test_in_front_of_others_nothing_is_saved_that_does_not_clearly_pay(changed):
    assert not plan(**changed).pays(in_front=True)


def test_in_an_idle_slot_a_save_may_cost_more_since_hardly_anybody_waits_for_it():
    tail = plan(covered=1450, chance=0.7)
    assert tail.pays(in_front=False)
    assert not tail.pays(in_front=True)


def test_a_save_in_front_of_others_is_short_whatever_it_brings():
    assert not Plan(cost_s=0.6, value_s=100).pays(in_front=True)


def test_a_file_that_would_load_slower_than_its_prompt_is_computed_is_worth_nothing():
    assert plan(load=1.0).value_s == 0


@given(TOKENS, TOKENS, st.floats(0, 1))
def test_no_plan_brings_less_than_nothing(tokens, covered, chance):
    found = plan(tokens, covered=min(tokens, covered), chance=chance)
    assert found.value_s >= 0
    assert found.cost_s > 0


def test_the_seed_of_the_pace_is_what_the_example_says():
    assert isinstance(seed_of("qwen2.5-1.5b"), Seed)
    assert QWEN.first_token_s(1500) > 3
