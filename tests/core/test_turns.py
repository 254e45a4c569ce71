"""The promise of `core/turns.py`: whole turns are left out, the oldest first, and the question never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.turns import fit, split_turns

SYSTEM = {"role": "system", "content": "s"}


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    return {"role": "assistant", "content": text}


CALLED = [
    user("light?"),
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
    {"role": "tool", "content": "on", "tool_call_id": "c1"},
    answer("It is on."),
]
LONG = [SYSTEM, user("a"), answer("b"), *CALLED, user("c"), answer("d"), user("the question")]


def shorter_than(count):
    return lambda messages: len(messages) <= count


def test_a_turn_is_a_question_with_all_that_follows_it():
    head, turns = split_turns(LONG)
    assert head == [SYSTEM]
    assert turns == [[user("a"), answer("b")], CALLED, [user("c"), answer("d")], [user("the question")]]


def test_a_question_in_several_messages_is_one_question():
    _, turns = split_turns([user("a"), answer("b"), user("look:"), user("what?")])
    assert turns[-1] == [user("look:"), user("what?")]


def test_what_fits_stays_as_it_is():
    assert fit(LONG, shorter_than(99)).messages == tuple(LONG)
    assert fit(LONG, shorter_than(99)).left_out == 0


@pytest.mark.parametrize(
    ("room", "kept"),
    [(9, [SYSTEM, *LONG[3:]]), (8, [SYSTEM, *LONG[3:]]), (7, [SYSTEM, *LONG[7:]]), (3, [SYSTEM, LONG[-1]])],
)
def test_the_oldest_turns_are_left_out_and_no_call_without_its_result(room, kept):
    fitted = fit(LONG, shorter_than(room))
    assert list(fitted.messages) == kept
    assert fitted.left_out == len(LONG) - len(kept)


def test_where_not_even_the_question_fits_there_is_nothing_to_run():
    assert fit(LONG, shorter_than(1)) is None
    assert fit([user("too long")], shorter_than(0)) is None


ROLES = st.sampled_from([user("u"), answer("a"), {"role": "tool", "content": "t"}, SYSTEM])


@given(st.lists(ROLES, max_size=30).map(lambda messages: [*messages, user("q")]), st.integers(0, 40))
def test_any_conversation_is_cut_only_where_a_turn_begins(messages, room):
    head, turns = split_turns(messages)
    assert [*head, *(message for turn in turns for message in turn)] == messages
    fitted = fit(messages, shorter_than(room))
    if fitted is None:
        assert len(head) + len(turns[-1]) > room
        return
    assert len(fitted.messages) <= room
    rest = list(fitted.messages)[len(head) :] if fitted.left_out else None
    if rest is not None:
        tails = [[message for turn in turns[n:] for message in turn] for n in range(1, len(turns))]
        assert rest in tails
        longer = [tail for tail in tails if len(tail) > len(rest)]
        assert all(len(head) + len(tail) > room for tail in longer)
