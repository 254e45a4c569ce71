"""The promise of `runtime/frames.py`: any cut of the bytes gives the same frames; else it is an error."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.runtime import frames
from rkllm_mqtt.runtime.frames import FrameError, FrameReader, encode_frame

FRAMES = st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers(), max_size=3), max_size=5)


@given(FRAMES, st.lists(st.integers(0, 400), max_size=6))
def test_frames_arrive_as_they_were_sent_wherever_the_stream_is_cut(sent, cuts):
    stream = b"".join(encode_frame(frame) for frame in sent)
    borders = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    reader = FrameReader()
    came = [frame for a, b in pairwise(borders) for frame in reader.feed(stream[a:b])]
    assert came == sent


def test_no_bytes_are_no_frame():
    assert FrameReader().feed(b"") == []


def test_a_frame_is_told_at_once_though_another_has_begun_behind_it():
    reader, line = FrameReader(), encode_frame({"t": "tokens"})
    assert [reader.feed(line + line[:3]), reader.feed(line[3:])] == [[{"t": "tokens"}]] * 2


def test_numbers_arrive_as_they_were_sent_but_for_those_that_json_has_no_word_for():
    numbers = [0.1, -0.0, 1e-300, 1.7976931348623157e308, 2**64, -(10**40), float("inf"), float("nan")]
    assert FrameReader().feed(encode_frame({"n": numbers})) == [{"n": [*numbers[:-2], None, None]}]


def test_half_a_surrogate_pair_is_never_sent():
    with pytest.raises(UnicodeEncodeError):
        encode_frame({"d": ["\ud83d"]})


def test_a_frame_is_one_line_however_its_text_is_broken():
    assert encode_frame({"t": "a\nb\r\n\u2028ü"}).count(b"\n") == 1


def test_a_byte_at_a_time_gives_the_frame_with_its_last_byte():
    reader, line = FrameReader(), encode_frame({"t": "tokens", "d": ["grüße"]})
    assert [reader.feed(line[i : i + 1]) for i in range(len(line) - 1)] == [[]] * (len(line) - 1)
    assert reader.feed(line[-1:]) == [{"t": "tokens", "d": ["grüße"]}]


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"\n",
        b"[1]\n",
        b"3\n",
        b'"t"\n',
        b"{\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"d":"\\ud83d"}\n',
    ],
)
def test_a_line_that_is_no_json_object_is_an_error(line):
    with pytest.raises(FrameError):
        FrameReader().feed(line)


def test_an_escape_that_is_a_whole_character_is_read():
    assert FrameReader().feed(b'{"d":"\\u0001\\ud83d\\ude00"}\n') == [{"d": "\u0001😀"}]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)  # the limit is a number, not behaviour
    reader = FrameReader()
    assert reader.feed(b"x" * 100) == []
    with pytest.raises(FrameError, match="longer than 100 bytes"):
        reader.feed(b"x")


def test_the_limit_leaves_room_for_the_largest_prompt():
    largest = {"op": "run", "prompt": "\u0001" * 4_000_000}  # every character escaped: six bytes each
    assert len(encode_frame(largest)) < frames.MAX_FRAME_BYTES
    assert json.loads(encode_frame(largest)) == largest
