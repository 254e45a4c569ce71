"""The promise of `core/stops.py`: ends at the first stop string, shows no part of one, at any cuts."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.stops import StopFilter

STRINGS = st.lists(st.text("ab<|", min_size=1, max_size=5), max_size=4)
TEXTS = st.text("ab<|>", max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=10)


def pieces_of(text, cuts):
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(borders)]


def run(stops, pieces, drop=()):
    stop_filter = StopFilter(stops, drop=drop)
    shown = [stop_filter.feed(piece) for piece in pieces]
    return "".join(shown) + stop_filter.flush(), stop_filter.stopped


def naive(stops, text, drop=()):
    """The rule, one character at a time: what ends first wins; a stop before a marker; then the longest."""
    shown, pending = "", ""
    for character in text:
        pending += character
        stop = max((s for s in stops if s and pending.endswith(s)), key=len, default="")
        marker = max((s for s in drop if s and pending.endswith(s)), key=len, default="")
        if stop:
            return shown + pending[: -max(len(stop), len(marker))], stop
        if marker:
            shown, pending = shown + pending[: -len(marker)], ""
    return shown + pending, None


def test_nothing_is_held_back_when_nothing_can_match():
    stop_filter = StopFilter(["<|im_end|>"])
    assert stop_filter.feed("Hello world.") == "Hello world."


def test_a_stop_string_over_four_tokens_never_shows_a_character():
    stop_filter = StopFilter(["<|im_end|>"])
    shown = [stop_filter.feed(piece) for piece in ("Yes.<", "|im", "_end|", "> and more", " still more")]
    assert shown == ["Yes.", "", "", "", ""]
    assert stop_filter.stopped == "<|im_end|>"
    assert stop_filter.flush() == ""


def test_a_false_start_is_shown_as_soon_as_it_is_one():
    stop_filter = StopFilter(["<|im_end|>"])
    assert [stop_filter.feed(piece) for piece in ("a <", "|im", " b")] == ["a ", "", "<|im b"]


def test_only_the_longest_end_that_may_still_become_a_stop_is_held():
    stop_filter = StopFilter(["aab"])
    assert stop_filter.feed("xaaa") == "xa"
    assert stop_filter.feed("b") == ""
    assert stop_filter.stopped == "aab"


def test_what_was_held_comes_out_when_the_text_is_over():
    stop_filter = StopFilter(["END"])
    assert stop_filter.feed("the EN") == "the "
    assert stop_filter.flush() == "EN"
    assert stop_filter.flush() == ""
    assert stop_filter.stopped is None


def test_the_string_that_is_complete_first_wins():
    assert run(["abcd", "bc"], ["xabcd"]) == ("xa", "bc")


def test_of_two_that_end_together_the_longer_wins():
    assert run(["c", "abc"], ["xabc"]) == ("x", "abc")


def test_markers_are_dropped_and_the_answer_goes_on():
    assert run([], ["He<|x", "|>llo"], drop=["<|x|>"]) == ("Hello", None)


def test_a_string_that_is_stop_and_marker_stops():
    assert run(["<|x|>"], ["He<|x|>llo"], drop=["<|x|>"]) == ("He", "<|x|>")


def test_a_stop_at_the_end_of_a_marker_shows_nothing_of_the_marker():
    assert run(["end"], ["a<end"], drop=["<end"]) == ("a", "end")


def test_a_marker_within_the_beginning_of_a_longer_one_is_dropped():
    assert run([], ["xabcx"], drop=["abcd", "bc"]) == ("xax", None)


def test_empty_stop_strings_are_ignored():
    assert run(["", "b"], ["abc"]) == ("a", "b")
    assert run([], ["abc"]) == ("abc", None)


def test_characters_with_a_meaning_in_patterns_are_plain_characters():
    assert run(["]^", "\\d", "-"], ["a5]b^\\", "d"]) == ("a5]b^", "\\d")


def test_a_very_long_stop_string_costs_no_more_than_its_length():
    stop = "a" * 50_000 + "b"
    assert run([stop], ["a" * 60_000, "b"]) == ("a" * 10_000, stop)


@settings(deadline=None)
@given(STRINGS, STRINGS, TEXTS, CUTS)
@example(["ab<|a"], ["b<|b"], "ab<|b<|a", [2, 4])
def test_any_cut_gives_what_the_plain_rule_gives(stops, drop, text, cuts):
    assert run(stops, pieces_of(text, cuts), drop) == naive(stops, text, drop)


@settings(deadline=None)
@given(STRINGS, TEXTS, CUTS)
def test_what_is_shown_while_streaming_is_never_taken_back(stops, text, cuts):
    stop_filter = StopFilter(stops)
    shown = "".join(map(stop_filter.feed, pieces_of(text, cuts)))
    expected, stop = naive(stops, text)
    assert expected.startswith(shown)
    assert all(string not in expected for string in stops)
    if stop is not None:
        assert text.startswith(expected + stop)
