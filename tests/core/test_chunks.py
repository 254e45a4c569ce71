"""The promise of `core/chunks.py`: growing beginnings of about a chunk, cut where messages or words begin."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.chunks import next_cut


def cuts_of(prompt, start, chunk, borders=()):
    cuts = []
    while (cut := next_cut(prompt, cuts[-1] if cuts else start, chunk, borders)) is not None:
        cuts.append(cut)
    return tuple(cuts)


@given(st.text("ab \n<|", max_size=400), st.integers(0, 50), st.integers(1, 60))
def test_no_piece_is_longer_than_a_chunk_and_none_is_much_shorter(prompt, start, chunk):
    start = min(start, len(prompt))
    cuts = cuts_of(prompt, start, chunk, ("<|",))
    edges = [start, *cuts, len(prompt)]
    assert edges == sorted(edges)
    for begin, end in pairwise(edges):
        assert end - begin <= chunk
    if cuts:
        for begin, end in pairwise(edges):
            assert end - begin >= 0.35 * chunk - 1


def test_a_short_prompt_and_a_chunk_of_nothing_are_not_cut():
    assert cuts_of("word " * 100, 0, 500) == ()
    assert cuts_of("word " * 100, 300, 200) == ()
    assert cuts_of("word " * 100, 0, 0) == ()


def test_a_cut_is_made_where_a_message_begins():
    prompt = "<|im_start|>user\n" + "word " * 15 + "<|im_end|>\n<|im_start|>assistant\n" + "word " * 60
    (first, *_) = cuts_of(prompt, 0, 115, ("<|im_start|>",))
    assert prompt[first:].startswith("<|im_start|>assistant")


@pytest.mark.parametrize("gap", [" ", "\n"])
def test_else_in_front_of_a_word(gap):
    prompt = ("fifteen-letters" + gap) * 100
    for cut in cuts_of(prompt, 0, 200):
        assert prompt[cut] == gap
