"""The promise of `answer.py`: whatever order deltas come in, the text is right and never contradicted."""

import json
import random

import pytest
from board import golden
from custom_components.rkllm_mqtt.answer import Answer, AnswerChanged
from custom_components.rkllm_mqtt.protocol import Delta, parse_final


def delta(seq, text="", attempt=1, thinking=""):
    return Delta(attempt, seq, text, thinking)


def final(text, **changes):
    members = golden("final") | {"text": text, "thinking": ""} | changes
    return parse_final(json.dumps(members))


def test_deltas_in_order_are_given_out_at_once():
    answer = Answer()
    assert answer.add(delta(0, "Good ")) == ("Good ", "")
    assert answer.add(delta(1, thinking="hm")) == ("", "hm")
    assert answer.add(delta(2, "day")) == ("day", "")
    assert answer.finish(final("Good day", thinking="hm")) == ("", "")


def test_any_order_repetition_and_loss_give_the_text_once():
    chance = random.Random(7)
    parts = [f"word{number} " for number in range(30)]
    text = "".join(parts)
    for _ in range(300):
        answer = Answer()
        sent = [delta(seq, part) for seq, part in enumerate(parts)]
        sent = [each for each in sent if chance.random() > 0.1] + chance.choices(sent, k=5)
        chance.shuffle(sent)
        heard = "".join(answer.add(each)[0] for each in sent)
        assert text.startswith(heard)
        assert heard + answer.finish(final(text))[0] == text


def test_a_missing_delta_holds_the_later_ones_back():
    answer = Answer()
    assert answer.add(delta(1, "b")) == ("", "")
    assert answer.add(delta(0, "a")) == ("ab", "")


def test_a_restart_that_says_the_same_goes_on_where_it_was():
    answer = Answer()
    answer.add(delta(0, "Good "))
    answer.add(delta(1, "day"))
    assert answer.restart(2, 0) == ("", "")
    assert answer.add(delta(2, "late", attempt=1)) == ("", "")
    assert answer.add(delta(0, "Go", attempt=2)) == ("", "")
    assert answer.add(delta(1, "od day, you", attempt=2)) == (", you", "")


def test_a_restart_keeps_the_deltas_that_stay_valid():
    answer = Answer()
    answer.add(delta(0, "one "))
    answer.add(delta(1, "two "))
    answer.restart(2, 1)
    assert answer.add(delta(1, "two and ", attempt=2)) == ("and ", "")


def test_a_new_attempt_before_its_event_is_taken_from_its_start():
    answer = Answer()
    answer.add(delta(0, "Good "))
    assert answer.add(delta(0, "Good d", attempt=2)) == ("d", "")
    assert answer.restart(2, 0) == ("", "")


def test_deltas_of_a_new_attempt_wait_for_the_event_that_places_them():
    answer = Answer()
    answer.add(delta(0, "one "))
    assert answer.add(delta(1, "two", attempt=2)) == ("", "")
    assert answer.restart(2, 1) == ("two", "")


def test_a_restart_that_says_something_else_ends_the_answer():
    answer = Answer()
    answer.add(delta(0, "It is on"))
    answer.restart(2, 0)
    with pytest.raises(AnswerChanged):
        answer.add(delta(0, "It was never", attempt=2))


def test_a_shorter_beginning_that_differs_ends_the_answer_too():
    answer = Answer()
    answer.add(delta(0, "It is on"))
    answer.restart(2, 0)
    with pytest.raises(AnswerChanged):
        answer.add(delta(0, "No", attempt=2))


def test_before_anything_was_said_a_restart_may_say_anything():
    answer = Answer()
    answer.restart(2, 0)
    assert answer.add(delta(0, "fresh", attempt=2)) == ("fresh", "")


def test_a_cut_final_takes_nothing_back():
    answer = Answer()
    answer.add(delta(0, "a long answer"))
    assert answer.finish(final("a long", truncated=True)) == ("", "")


@pytest.mark.parametrize("text", ["another", "a lon"])
def test_a_final_that_contradicts_the_deltas_ends_the_answer(text):
    answer = Answer()
    answer.add(delta(0, "a long answer"))
    with pytest.raises(AnswerChanged):
        answer.finish(final(text))


def test_the_final_alone_is_enough():
    answer = Answer()
    assert answer.finish(final("all of it", thinking="why")) == ("all of it", "why")
