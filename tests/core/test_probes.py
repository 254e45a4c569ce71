"""The promise of `core/probes.py`: prompts that part where they should, and answers read with care."""

from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.probes import (
    GIVEN_UP,
    LENGTH,
    PARTINGS,
    STEPS,
    Computed,
    failed,
    granularity_of,
    holds_answer,
    is_reused,
    letters,
    next_step,
    to_make,
    without,
)

REUSING = CacheFacts(reuses_finished=True)


def test_steps_follow_each_other_and_need_what_they_build_on():
    assert next_step(CacheFacts(), [], {}) == "reuse"
    assert next_step(CacheFacts(reuses_finished=False), ["reuse"], {}) == "aborted"
    assert next_step(CacheFacts(reuses_finished=False), ["reuse", "aborted"], {}) is None
    assert [next_step(REUSING, STEPS[:done], {}) for done in range(5)] == [*STEPS, None]


def test_a_step_that_did_not_end_twice_is_left_alone():
    assert next_step(CacheFacts(), [], {"reuse": GIVEN_UP - 1}) == "reuse"
    assert next_step(CacheFacts(), [], {"reuse": GIVEN_UP}) == "aborted"
    assert failed({"reuse": GIVEN_UP - 1, "files": GIVEN_UP}) == ("files",)
    assert without("reuse") == {}
    assert set(without("files")) == {"load_s_per_mb", "save_s_per_mb", "bytes_per_token"}


@given(st.integers(0, 2**63), st.sampled_from(PARTINGS))
def test_two_prompts_differ_in_one_letter_and_have_the_same_length(seed, place):
    one, other = letters(seed).split(), letters(seed, place).split()
    assert [n for n in range(LENGTH) if one[n] != other[n]] == [place]
    assert all(len(letter) == 1 for letter in one + other)
    assert letters(seed, count=3) == letters(seed)[:6]


def test_another_seed_has_another_beginning():
    beginnings = {letters(seed, count=8) for seed in range(0, 10**6, 7919)}
    assert len(beginnings) == len(range(0, 10**6, 7919))


@given(st.integers(1, 96), st.integers(0, 40))
def test_the_granularity_that_is_told_never_promises_too_much(granularity, header):
    lengths = [header + place for place in PARTINGS]
    matched = [length - length % granularity for length in lengths]
    told = granularity_of(matched)
    assert told is None or told % granularity == 0
    if granularity <= 2 and header == 0:
        assert told == granularity


def test_a_time_tells_only_where_it_is_long_and_clear():
    slow, quick, between = Computed(None, 400), Computed(None, 60), Computed(None, 260)
    assert [is_reused(slow, again) for again in (quick, slow, between)] == [True, False, None]
    assert is_reused(Computed(None, 2), Computed(None, 0)) is None


def test_tokens_tell_where_the_first_prompt_was_computed():
    whole = Computed(LENGTH + 3, 0)
    assert is_reused(whole, Computed(15, 0)) is True
    assert is_reused(whole, Computed(LENGTH, 0)) is False
    assert is_reused(Computed(5, 0), Computed(5, 0)) is None


@given(st.integers(1, 32), st.integers(100, 160))
def test_an_answer_that_is_held_is_told_from_one_that_is_not(granularity, prompt):
    said = (to_make(granularity) or 0) // 2
    held, lost = prompt + said - 1, prompt - 1  # a token more is computed where texts join
    for matched, holds in ((held, True), (lost, False)):
        computed = prompt + said + 16 - (matched - matched % granularity)
        assert holds_answer(prompt, said, 16, computed) is holds


def test_nobody_makes_hundreds_of_tokens_for_one_fact():
    assert to_make(64) is None
