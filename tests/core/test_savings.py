"""The promise of `core/savings.py`: saved is what computing all would have taken, less what it took."""

import pytest

from rkllm_mqtt.core.rates import Rates
from rkllm_mqtt.core.savings import Savings
from rkllm_mqtt.core.seeds import seed_of

RATES = Rates(seed_of())


def test_a_prompt_that_is_mostly_cached_saves_most_of_its_prefill():
    savings = Savings()
    savings.count(RATES, 1200, 20)
    assert (savings.hits, savings.tokens, savings.hit_percent) == (1, 1200, pytest.approx(98.4))
    assert savings.seconds == pytest.approx(RATES.first_token_s(1220) - RATES.first_token_s(20, 1200))


def test_a_restore_is_taken_off_and_nothing_is_ever_lost():
    savings = Savings()
    savings.count(RATES, 1200, 20, restore_s=1000)
    assert savings.seconds == 0


@pytest.mark.parametrize(("cached", "computed", "percent"), [(0, 400, 0.0), (8, 400, 0.0), (100, None, None)])
def test_headers_and_runs_of_which_nothing_is_told_are_no_hits(cached, computed, percent):
    savings = Savings()
    savings.count(RATES, cached, computed)
    assert (savings.hits, savings.hit_percent) == (0, percent)
