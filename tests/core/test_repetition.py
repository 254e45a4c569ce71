"""The promise of `core/repetition.py`: loops are noticed soon, legitimate repetition is left alone."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.repetition import MAX_SPAN, MIN_REPEATS, MIN_TOKENS, RepetitionDetector


def tokens_of(text):
    """Words, numbers and marks, each with the space before it: about what a tokenizer makes of text."""
    return re.findall(r"\s?\w+|\s?[^\w\s]|\s", text)


def noticed_at(tokens, **limits):
    """Return how many tokens went in before the loop was noticed; None when it was not."""
    detector = RepetitionDetector(**limits)
    for count, token in enumerate(tokens, 1):
        if detector.feed(token):
            return count
    return None


PROSE = tokens_of(
    "The heating in the living room was switched on at six, because the temperature had fallen below "
    "nineteen degrees. The window in the kitchen is open, so the kitchen will take longer to get warm. "
)


@pytest.mark.parametrize("span", [1, 2, 3, 7, 20, 25, 33, MAX_SPAN])
def test_a_loop_is_noticed_when_it_is_long_enough_and_within_eight_tokens_of_it(span):
    start = list(PROSE)
    enough = max(MIN_TOKENS, MIN_REPEATS * span)
    loop = itertools.cycle([f"w{i}" for i in range(span)])
    at = noticed_at([*start, *itertools.islice(loop, 2000)])
    assert at is not None
    assert enough <= at - len(start) < enough + 8


def test_a_loop_whose_tokens_occur_more_than_once_in_the_span_is_noticed():
    assert noticed_at("aabb" * 100) is not None
    assert noticed_at("aabababbab" * 40) is not None
    assert noticed_at(tokens_of("I am sorry, I am not able to help. I am sorry. " * 40)) is not None


def test_token_ids_serve_as_well_as_texts():
    assert noticed_at([17, 4, 99] * 100) is not None


def test_the_span_is_reported_and_the_verdict_stays():
    detector = RepetitionDetector()
    assert any(detector.feed(token) for token in "abc" * 100)
    assert detector.span == 3
    assert detector.feed("something new")


def test_a_loop_longer_than_the_longest_span_is_none():
    assert noticed_at(list(range(MAX_SPAN + 1)) * 40) is None


@pytest.mark.parametrize(
    "text",
    [
        "ha " * 20,
        "".join(f"{i}. Check the sensor in room {i} and write the value down.\n" for i in range(1, 80)),
        "| Room | Celsius | Open |\n" + "| --- " * 12 + "|\n" + "| Kitchen | 21.5 | no |\n" * 12,
        "    led.on()\n    sleep(1)\n    led.off()\n    sleep(1)\n" * 7,
        "x = [" + "0, " * 90 + "0]",
        "-" * 150 + "\n",
        "".join(f"sensor_{i}: 0\n" for i in range(200)),
        "La la la, la la la, hey Jude. " * 6,
    ],
    ids=["laughter", "numbered list", "table", "code", "zeros", "ruler", "counting", "refrain"],
)
def test_legitimate_repetition_is_left_alone(text):
    assert noticed_at([*PROSE, *tokens_of(text), *PROSE]) is None


def test_the_limits_can_be_set():
    assert noticed_at("ab" * 50, min_repeats=3, min_tokens=10) == 16
    assert noticed_at("ab" * 50, max_span=1) is None


@pytest.mark.parametrize("limits", [{"max_span": 0}, {"min_repeats": 2}])
def test_limits_without_a_meaning_are_refused(limits):
    with pytest.raises(ValueError, match="at least"):
        RepetitionDetector(**limits)


def test_a_loop_late_in_a_long_answer_is_noticed_too():
    detector = RepetitionDetector()
    assert not any(detector.feed(token) for token in range(20_000))
    assert any(detector.feed(token) for token in "ab" * 200)


@pytest.mark.parametrize("before", range(800, 1300, 50))
def test_the_bounded_memory_delays_nothing(before):
    at = noticed_at([*range(before), *"ab" * 200])
    assert at is not None
    assert MIN_TOKENS <= at - before < MIN_TOKENS + 8


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 6), st.integers(3, 5), st.integers(1, 30))
def test_it_fires_exactly_when_the_end_repeats_often_enough(tokens, max_span, min_repeats, min_tokens):
    detector = RepetitionDetector(max_span=max_span, min_repeats=min_repeats, min_tokens=min_tokens)
    fired = [detector.feed(token) for token in tokens]

    def loops(end):
        for span in range(1, max_span + 1):
            covered = max(min_tokens, min_repeats * span)
            tail = tokens[max(0, end - covered) : end]
            if len(tail) == covered and all(tail[i] == tail[i - span] for i in range(span, covered)):
                return True
        return False

    looks = range(8, len(tokens) + 1, 8)
    assert any(fired) == any(loops(end) for end in looks)
