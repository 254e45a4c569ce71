"""The promise of `core/utf8.py`: whole characters, never an exception, whatever the cuts."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.utf8 import Utf8Stream


def pieces_of(data, cuts):
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(borders)]


def decoded(pieces):
    stream = Utf8Stream()
    return "".join([*(stream.feed(piece) for piece in pieces), stream.flush()])


def test_a_character_split_over_three_tokens_appears_when_it_is_whole():
    stream = Utf8Stream()
    assert [stream.feed(piece) for piece in (b"\xf0\x9f", b"\x98", b"\x80!")] == ["", "", "😀!"]


def test_a_character_that_never_ends_becomes_a_replacement_at_the_flush():
    stream = Utf8Stream()
    assert stream.feed(b"a\xe4\xb8") == "a"
    assert stream.flush() == "\ufffd"


def test_after_a_flush_the_stream_starts_afresh():
    stream = Utf8Stream()
    stream.feed(b"\xe4")
    stream.flush()
    assert stream.feed("ü".encode()) == "ü"
    assert stream.flush() == ""


def test_nul_characters_are_dropped():
    assert decoded([b"a\0", b"\0b"]) == "ab"


@settings(deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_any_bytes_cut_anywhere_decode_as_if_they_came_whole(data, cuts):
    assert decoded(pieces_of(data, cuts)) == data.decode("utf-8", "replace").replace("\0", "")


@settings(deadline=None)
@given(st.text(max_size=40), st.lists(st.integers(0, 160), max_size=8))
def test_every_piece_of_valid_text_holds_whole_characters_only(text, cuts):
    stream = Utf8Stream()
    shown = [stream.feed(piece) for piece in pieces_of(text.encode(), cuts)]
    assert "".join(shown) == text.replace("\0", "")
    assert stream.flush() == ""


def test_it_knows_whether_a_character_has_begun():
    stream = Utf8Stream()
    assert not stream.pending
    stream.feed(b"ab\xf0\x9f")
    assert stream.pending
    stream.feed(b"\x98\x80")
    assert not stream.pending
