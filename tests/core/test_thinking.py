"""The promise of `core/thinking.py`: thoughts and answer apart, no marker in either, at any cuts."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.thinking import ThinkingSplitter

CUTS = st.lists(st.integers(0, 60), max_size=12)
# No marker inside, so that the expectation can be written down.
PLAIN = st.text("ab <>/ \n", max_size=15)


def pieces_of(text, cuts):
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(borders)]


def split(pieces, opens_thinking=False):
    """Return (thinking, text) joined."""
    splitter = ThinkingSplitter(opens_thinking)
    out = [piece for fed in pieces for piece in splitter.feed(fed)] + splitter.flush()
    assert all(text for _, text in out)
    return tuple("".join(text for kind, text in out if kind == wanted) for wanted in ("thinking", "text"))


def test_thoughts_and_answer_are_told_apart_across_token_borders():
    splitter = ThinkingSplitter(opens_thinking=False)
    fed = ("<th", "ink>\n", "Let me", " see.\n", "\n</th", "ink>", "\n\n", "It is ", "21.")
    assert [splitter.feed(piece) for piece in fed] == [
        [],
        [],
        [("thinking", "Let me")],
        [("thinking", " see.")],
        [],
        [],
        [],
        [("text", "It is ")],
        [("text", "21.")],
    ]


@pytest.mark.parametrize(
    ("answer", "opens_thinking", "expected"),
    [
        ("It is 21.", False, ("", "It is 21.")),
        ("<think>\n\n</think>\n\nIt is 21.", False, ("", "It is 21.")),
        (" \n<think></think>It is 21.", False, ("", "It is 21.")),
        ("Hm.\n</think>\n\nYes.", True, ("Hm.", "Yes.")),
        ("<think>\nHm.\n</think>\n\nYes.", True, ("Hm.", "Yes.")),
        ("Hm, still", True, ("Hm, still", "")),
        ("<think>Hm, a < b </thin", False, ("Hm, a < b </thin", "")),
        ("Use <think>tags</think>.", False, ("", "Use <think>tags</think>.")),
        ("<think>a</think>b <think>c</think>", False, ("a", "b <think>c</think>")),
        ("<think>a<think>b</think>c", False, ("a<think>b", "c")),
        ("<thinking about it>", False, ("", "<thinking about it>")),
        ("<thin", False, ("", "<thin")),
        ("  text keeps its white space \n", False, ("", "  text keeps its white space \n")),
        ("", True, ("", "")),
    ],
)
def test_answers_are_split_as_written_here(answer, opens_thinking, expected):
    assert split([answer], opens_thinking) == expected
    assert split(list(answer), opens_thinking) == expected


def test_text_flows_at_once_when_the_answer_does_not_begin_with_a_marker():
    splitter = ThinkingSplitter(opens_thinking=False)
    assert splitter.feed("<b") == [("text", "<b")]
    assert splitter.feed("<think>") == [("text", "<think>")]


def test_an_end_right_after_the_thoughts_can_be_noticed():
    splitter = ThinkingSplitter(opens_thinking=True)
    splitter.feed("Hm.</think>\n")
    assert splitter.unanswered
    splitter.feed("Yes")
    assert not splitter.unanswered


@settings(deadline=None)
@given(st.booleans(), st.text("<>/think \nab", max_size=60), CUTS)
def test_any_cut_gives_the_result_of_the_whole(opens_thinking, text, cuts):
    assert split(pieces_of(text, cuts), opens_thinking) == split([text], opens_thinking)


@settings(deadline=None)
@given(PLAIN, PLAIN, PLAIN, CUTS)
def test_the_joined_pieces_are_the_input_without_the_markers_and_the_space_around_them(gap, hm, answer, cuts):
    whole = f"{' ' * len(gap)}<think>{hm}</think>{answer}"
    assert split(pieces_of(whole, cuts)) == (hm.strip(), answer.lstrip())


@settings(deadline=None)
@given(st.text("ab <>/ \n", max_size=40), CUTS)
def test_an_answer_without_a_block_passes_unchanged(text, cuts):
    assert split(pieces_of(text, cuts)) == ("", text)
