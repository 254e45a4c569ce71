"""The promise of `evaluation.py`: every kind of question becomes options, and shares become its answer."""

import json

import pytest
from board import golden
from custom_components.rkllm_mqtt.evaluation import expected_level, put_question, read_shares
from custom_components.rkllm_mqtt.failure import RkllmFailure
from custom_components.rkllm_mqtt.protocol import parse_final

NOUL = {"type": "noul", "instructions": "Is anybody home?"}
CHOICE = {"type": "choice", "instructions": "What is it?", "criteria": {"cat": "it purrs", "dog": "it barks"}}
SCORE = {"type": "score", "instructions": "How warm?", "criteria": ["cold", "mild", "hot"]}


def final(**members):
    return parse_final(json.dumps(golden("final_evaluation") | members))


@pytest.mark.parametrize(
    ("question", "options"), [(NOUL, ["Yes", "No"]), (CHOICE, ["A", "B"]), (SCORE, ["1", "2", "3"])]
)
def test_each_kind_of_question_has_short_options_and_says_what_they_stand_for(question, options):
    asked = put_question(question, {"door": "open"})
    assert asked.options == options
    (system, user) = asked.messages
    assert (system["role"], user["role"]) == ("system", "user")
    assert question["instructions"] in user["content"]
    for criterion in question.get("criteria", ()):
        assert criterion in user["content"]


def test_the_state_comes_first_so_that_questions_about_it_begin_alike():
    state = {"b": 1, "a": [2]}
    texts = [put_question(question, state).messages[1]["content"] for question in (NOUL, CHOICE, SCORE)]
    assert all(text.startswith('{"a":[2],"b":1}\n\n') for text in texts)
    assert put_question(NOUL, "The door is open.").messages[1]["content"].startswith("The door is open.\n")


def test_more_answers_than_letters_have_numbers():
    many = {"type": "choice", "instructions": "?", "criteria": {f"n{n}": "x" for n in range(27)}}
    assert put_question(many, "s").options[-1] == "27"
    many["criteria"].popitem()
    assert put_question(many, "s").options[-1] == "Z"


def test_shares_are_those_of_the_golden_message():
    assert read_shares(final(), ["No", "Yes"]) == [0.182425524, 0.817574476]


@pytest.mark.parametrize(
    "members",
    [{"evaluation": None}, {"evaluation": []}, {"evaluation": [{"option": "Yes"}]}, {"evaluation": "x"}],
)
def test_a_final_that_weighs_something_else_is_a_failure(members):
    with pytest.raises(RkllmFailure):
        read_shares(final(**members), ["Yes", "No"])


def test_the_score_is_the_mean_level():
    assert expected_level([0.25, 0.25, 0.5]) == pytest.approx(1.25)
    assert expected_level([1.0, 0.0]) == 0
