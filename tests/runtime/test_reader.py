"""The promise of `runtime/reader.py`: one reading, wherever the text was cut, in one run or in many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.runtime.order import CallOrder, RunOrder
from rkllm_mqtt.runtime.reader import AnswerReader

TOOLS = CallOrder({"light": {"type": "object", "properties": {"on": {"type": "boolean"}}}})
CALL = '<tool_call>\n{"name": "light", "arguments": {"on": true}}\n</tool_call>'
ANSWERS = [
    "Good day, all is well.",
    "one  two \n\n three\n",
    "<think>\nLet me see.\n</think>\n\nIt is nine.",
    f"I do it. {CALL}",
    f"<think>\nhm\n</think>\n{CALL}\n{CALL}",
    "first STOP second",
    "a<|im_end|>b",
    "a <pad>b <pa c",
]


def reader_of(carried=(), calls=TOOLS):
    order = RunOrder(
        "p",
        100,
        stops=("<|im_end|>",),
        text_stops=("STOP",),
        specials=("<pad>",),
        calls=calls,
        carried=tuple(carried),
    )
    return AnswerReader(order.frame(1))


def joined(pieces):
    """Text and thoughts joined, calls in order."""
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    thoughts = "".join(piece[0] for piece in pieces if isinstance(piece, list))
    return text, thoughts, [piece for piece in pieces if isinstance(piece, dict)]


def read(pieces, calls=TOOLS):
    reader = reader_of(calls=calls)
    for piece in pieces:
        if reader.stopped:
            break
        reader.feed(piece)
    reader.end("", complete=True)
    return joined(reader.take()), reader.written()


@pytest.mark.parametrize("answer", ANSWERS)
@given(st.data())
def test_an_answer_in_several_runs_reads_as_in_one(answer, data):
    calls = data.draw(st.sampled_from([TOOLS, None]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True) if a < b]
    whole, written = read([answer], calls)
    shown, made, reader = [], [], reader_of(calls=calls)
    gives_way = data.draw(st.sets(st.integers(0, len(pieces))))
    for number, piece in enumerate(pieces):
        if number in gives_way:  # a new run: it makes the white space at the end once more
            carried = "".join(made)
            shown += reader.take()
            reader = reader_of(made, calls)
            again = carried[len(carried.rstrip()) :]
            assert reader.again == len(again)
            assert not again or not reader.feed(again)
        if reader.stopped:
            break
        made.append(piece)
        assert reader.feed(piece)
    reader.end("", complete=True)
    assert joined(shown + reader.take()) == whole
    if "STOP" not in answer:  # what the model wrote behind the sender's stop string depends on its tokens
        assert reader.written() == written


def test_white_space_that_comes_again_with_more_behind_it_is_shown_once():
    reader = reader_of(["It is", " \n"], None)
    assert reader.feed(" \nnine")
    reader.end("", complete=True)
    assert joined(reader.take())[0] == "nine"


def test_a_model_that_goes_on_in_another_way_is_believed():
    reader = reader_of(["It is", "\n\n"], None)
    assert reader.feed("nine")
    assert reader.feed(" o'clock")
    assert joined(reader.take())[0] == "nine o'clock"
