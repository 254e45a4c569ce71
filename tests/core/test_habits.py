"""The promise of `core/habits.py`: a client's answers are expected to be as long as its last ones were."""

import pytest

from rkllm_mqtt.core.habits import Habits


def test_before_the_first_answer_a_middling_one_is_expected_but_never_more_than_asked():
    habits = Habits()
    assert habits.expected("hall", 500) == (96.0, 1.0)
    assert habits.expected("hall", 20) == (20, 1.0)


def test_a_client_is_told_from_the_others_and_its_short_requests_from_its_long_ones():
    habits = Habits()
    for _ in range(16):
        habits.learn("hall", 500, 200, 0.5)
        habits.learn("hall", 32, 10, 1.0)
        habits.learn("attic", 500, 20, 1.0)
    assert habits.expected("hall", 500)[0] == pytest.approx(200, rel=0.1)
    assert habits.expected("hall", 500)[1] == pytest.approx(0.5, rel=0.1)
    assert habits.expected("hall", 32)[0] == pytest.approx(10, rel=0.5)
    assert habits.expected("attic", 500)[0] == pytest.approx(20, rel=0.4)


def test_after_six_answers_ones_own_length_counts_and_hardly_that_of_the_others():
    habits = Habits()
    for _ in range(100):
        habits.learn("attic", 500, 200, 1.0)
    for _ in range(6):
        habits.learn("hall", 500, 10, 1.0)
    assert habits.expected("hall", 500)[0] == pytest.approx(10, rel=0.6)


def test_a_stranger_is_expected_to_be_like_everybody():
    habits = Habits()
    for tokens in (10, 30):
        habits.learn("hall", 500, tokens, 1.0)
    assert habits.expected("stranger", 500)[0] == pytest.approx(20)


def test_new_habits_replace_old_ones():
    habits = Habits()
    for tokens in [10] * 50 + [100] * 50:
        habits.learn("hall", 500, tokens, 1.0)
    assert habits.expected("hall", 500)[0] == pytest.approx(100, rel=0.06)


def test_the_memory_is_bounded_and_the_least_recent_go():
    habits = Habits(remembered=10)
    for number in range(100):
        habits.learn(f"c-{number}", 500, 50, 1.0)
    assert len(habits._known) == 10
    assert ("c-99", 500) in habits._known
