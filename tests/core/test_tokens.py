"""The promise of `core/tokens.py`: a fair guess at first, a good one after a few exact counts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.tokens import SEED, TokenEstimator, exactly, kinds_of

ENGLISH = "The kitchen light has been on since seven, and nobody is in the room any more. " * 20
POLISH = "Światło w kuchni świeci się od siódmej, a nikogo już nie ma w pokoju. " * 20
CHINESE = "厨房的灯从七点开始一直亮着，房间里已经没有人了。" * 20
STATES = '{"entity_id":"sensor.kitchen_temperature","state":"21.4","unit":"°C"},' * 20

# At usual rates: characters a token are 4.7 in English, 3.2 in Polish, 1.6 in Chinese, 3.1 in compact JSON.
COUNTED = [(ENGLISH, 340), (POLISH, 440), (CHINESE, 300), (STATES, 460)]


def test_the_kinds_of_characters_are_counted_whole():
    kinds = kinds_of("Ab1 2.ż€厨🙂\n")
    assert kinds == {
        "letters": 2, "digits": 2, "blanks": 2, "marks": 1,
        "accents": 1, "alphabets": 0, "cjk": 2, "emoji": 1,
    }  # fmt: skip


@given(st.text())
def test_every_character_is_of_one_kind(text):
    readable = text.encode("utf-8", "replace").decode()
    assert sum(kinds_of(text).values()) == len(readable)
    assert kinds_of(text).keys() == SEED.keys()


@pytest.mark.parametrize(("text", "tokens"), COUNTED)
def test_before_anything_is_known_the_guess_is_within_its_own_margin(text, tokens):
    guess = TokenEstimator().estimate(text)
    assert guess.low <= tokens <= guess.high
    assert guess.low < guess.tokens < guess.high


@pytest.mark.parametrize(("text", "tokens"), COUNTED)
@pytest.mark.parametrize("factor", [0.5, 1.8])
def test_a_few_exact_counts_teach_a_strange_tokenizer(text, tokens, factor):
    estimator = TokenEstimator()
    for _ in range(20):
        estimator.learn(text, round(tokens * factor))
    assert estimator.estimate(text).tokens == pytest.approx(tokens * factor, rel=0.05)
    assert estimator.margin < 0.1


def test_what_one_language_teaches_leaves_another_alone():
    estimator = TokenEstimator()
    before = estimator.estimate(CHINESE).tokens
    for _ in range(20):
        estimator.learn(ENGLISH, 600)
    assert estimator.estimate(CHINESE).tokens == pytest.approx(before, rel=0.1)


def test_a_wrong_count_is_not_believed_at_once_and_a_header_teaches_nothing():
    estimator = TokenEstimator()
    before = estimator.estimate(ENGLISH).tokens
    estimator.learn(ENGLISH, 100_000)
    assert estimator.estimate(ENGLISH).tokens < 1.5 * before
    fresh = TokenEstimator()
    fresh.learn("Hi", 9)
    assert fresh.weights == dict(SEED)


def test_an_exact_count_has_no_margin():
    assert (exactly(7).low, exactly(7).tokens, exactly(7).high) == (7, 7, 7)
    assert TokenEstimator().estimate("").tokens == 0


def test_what_was_learned_survives_a_restart():
    estimator, again = TokenEstimator(), TokenEstimator()
    for _ in range(20):
        estimator.learn(POLISH, 700)
    again.resume(json.loads(json.dumps(estimator.to_json())))
    assert again.estimate(POLISH) == estimator.estimate(POLISH)


@pytest.mark.parametrize(
    "kept", [None, [], {"weights": 1}, {"weights": dict(SEED) | {"cjk": "x"}, "margin": 0.1}]
)
def test_what_was_kept_and_cannot_be_is_left_alone(kept):
    estimator = TokenEstimator()
    estimator.resume(kept)
    estimator.resume({"weights": dict(SEED) | {"cjk": -1}, "margin": 0.1})
    assert estimator == TokenEstimator()
