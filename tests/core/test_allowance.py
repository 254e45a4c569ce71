"""The promise of `core/allowance.py`: each client has its rate, and nobody pays for another's flood."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rkllm_mqtt.core.allowance import Allowances, Rate

RATE = Rate(per_s=100, burst=20, burst_alone=50)


def spent(allowances, client, times, now, rate=RATE):
    """Return how many of so many requests got a token."""
    return sum(allowances.spend(client, now, rate) for _ in range(times))


def test_a_client_alone_has_the_large_bucket_and_then_its_rate():
    allowances = Allowances(5)
    assert spent(allowances, "a", 80, now=100.0) == 50
    assert spent(allowances, "a", 80, now=101.0) == 50
    # No more comes back than fits: a quiet week is worth one bucket.
    assert spent(allowances, "a", 80, now=1e6) == 50


def test_a_client_that_asks_too_fast_while_another_asks_now_and_then_has_the_small_one():
    allowances = Allowances(5)
    allowances.spend("kitchen", 99.9, RATE)
    assert allowances.spend("flood", 100.0, RATE)
    allowances.spend("kitchen", 100.0, RATE)
    assert spent(allowances, "flood", 80, now=100.0) == 19
    assert spent(allowances, "flood", 80, now=100.11) == 10
    assert spent(allowances, "flood", 80, now=100.15) == 0
    # The other one has gone: what it may send alone is there again.
    assert spent(allowances, "flood", 80, now=111.0) == 50


def test_the_first_requests_of_another_burst_are_no_company():
    allowances = Allowances(5)
    for client in "ab":
        spent(allowances, client, 1, now=100.0)
    assert spent(allowances, "a", 30, now=100.01) == 30
    assert spent(allowances, "b", 30, now=100.02) == 30


def test_who_asked_before_the_burst_began_is_no_company():
    allowances = Allowances(5)
    allowances.spend("kitchen", 100.0, RATE)
    allowances.spend("kitchen", 100.4, RATE)
    assert spent(allowances, "a", 80, now=100.5) == 50


def test_many_that_flood_together_are_no_company_of_each_other():
    """Ten senders that begin at once are a crowd: nobody among them waits for the next."""
    allowances = Allowances(50)
    taken = dict.fromkeys("abcdefghij", 0)
    for turn in range(40):
        for client in taken:
            taken[client] += allowances.spend(client, 100.0 + turn / 100, RATE)
    assert set(taken.values()) == {40}


def test_tokens_come_back_in_lots_so_that_a_flood_costs_few_commits():
    allowances = Allowances(5)
    spent(allowances, "a", 80, now=100.0)
    granted = [spent(allowances, "a", 20, now=100.0 + step / 100) for step in range(1, 101)]
    assert sum(granted) == pytest.approx(100, abs=10)
    assert sum(1 for count in granted if count) <= 11


@given(
    st.floats(0.01, 1000),
    st.integers(1, 20),
    st.lists(st.floats(0, 3), max_size=60),
)
def test_never_more_than_the_burst_and_the_rate(per_s, burst, pauses):
    rate = Rate(per_s, burst, burst)
    allowances, now, taken = Allowances(2), 0.0, 0
    for pause in pauses:
        now += pause
        taken += spent(allowances, "a", 3, now, rate)
    assert taken <= burst + now * per_s + 1e-6


@example(9.9999999, 1, 0.0)  # a hair less than a token comes back in a lot
@given(st.floats(0.01, 1000), st.integers(1, 20), st.floats(0, 2))
def test_the_next_token_is_there_when_it_was_promised(per_s, burst, pause):
    rate = Rate(per_s, burst, burst)
    allowances = Allowances(2)
    spent(allowances, "a", burst + 1, 0.0, rate)
    now = pause
    if allowances.spend("a", now, rate):
        spent(allowances, "a", burst, now, rate)
    promised = allowances.of("a", now, rate).next_in_s(now, per_s)
    assert promised > 0
    assert promised <= 1 / per_s + 0.1 + 1e-6
    assert allowances.spend("a", now + promised + 1e-5, rate)


def test_a_full_bucket_has_its_next_token_now():
    allowances = Allowances(2)
    assert allowances.of("a", 5.0, RATE).next_in_s(5.0, 100) == 0


def test_a_client_alone_is_told_its_refusals_at_once_and_no_more_than_so_many_a_second():
    allowances = Allowances(5)
    assert sum(allowances.tell("a", 100.0, RATE, 20) for _ in range(30)) == 20
    assert not allowances.tell("a", 100.9, RATE, 20)
    assert sum(allowances.tell("a", 101.0, RATE, 20) for _ in range(30)) == 20


@pytest.mark.parametrize("per_s", [1, 3, 20, 200])
def test_in_company_refusals_are_spread_over_the_second(per_s):
    allowances = Allowances(5)
    spent(allowances, "flood", 80, now=99.95)
    allowances.spend("kitchen", 99.9, RATE)
    told = []
    for step in range(1000):
        now = 100.0 + step / 100
        spent(allowances, "flood", 5, now)
        if not step % 20:
            allowances.spend("kitchen", now, RATE)
        told.append(sum(allowances.tell("flood", now, RATE, per_s) for _ in range(30)))
    assert max(told) <= max(1, per_s // 20)
    assert 0.8 * per_s <= sum(told) / 10 <= per_s + 0.1


def test_names_that_are_invented_fill_no_memory_and_harm_nobody_that_is_heard_of():
    allowances = Allowances(10)
    spent(allowances, "a", 80, now=0.0)
    for number in range(10_000):
        allowances.spend(f"n{number}", 0.0, RATE)
        assert not allowances.spend("a", 0.0, RATE)
    assert len(allowances) == 10
    assert len(allowances._modest) <= 10
