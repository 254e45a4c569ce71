"""The promise of `formats.py` and `validator.py`: an answer has the asked shape, or its fault is told."""

import time

import pytest
from live_slot import in_loop

from rkllm_mqtt import formats
from rkllm_mqtt.formats import shaped
from rkllm_mqtt.validator import problem_of

SCHEMA = {
    "type": "object",
    "properties": {"temperature": {"type": "number"}, "friend": {"$ref": "#"}},
    "required": ["temperature"],
}
SHAPE = {"type": "json_schema", "schema": SCHEMA}


@in_loop
async def test_a_valid_answer_is_its_json_alone():
    answer = await shaped('```json\n{"temperature": 21.5}\n```', SHAPE)
    assert (answer.text, answer.problem) == ('{"temperature": 21.5}', None)


@in_loop
async def test_what_is_wrong_is_told_with_its_place():
    answer = await shaped('{"temperature": 1, "friend": {"temperature": "warm"}}', SHAPE)
    assert answer.problem == "at ['friend']['temperature']: 'warm' is not of type 'number'"


@in_loop
async def test_an_answer_without_json_is_kept_whole():
    answer = await shaped("It is warm.", SHAPE)
    assert answer.text == "It is warm."
    assert "no JSON" in answer.problem


@pytest.mark.parametrize(("text", "problem"), [("{}", None), ("[]", "it is no JSON object")])
@in_loop
async def test_an_object_is_all_that_is_asked_without_a_schema(text, problem):
    assert (await shaped(text, {"type": "json_object"})).problem == problem


def test_at_most_three_problems_are_told_and_none_at_length():
    problem = problem_of({"items": {"type": "string"}}, [list(range(1000))] * 9)
    assert problem.count("at [") == 3
    assert len(problem) < 1500


def test_nothing_is_fetched():
    with pytest.raises(Exception, match="Unresolvable"):
        problem_of({"$ref": "http://127.0.0.1:1/schema.json"}, {})


@in_loop
async def test_a_schema_without_end_is_a_problem_and_no_error():
    answer = await shaped("{}", {"type": "json_schema", "schema": {"allOf": [{"$ref": "#"}]}})
    assert answer.problem


@in_loop
async def test_a_validation_that_takes_for_ever_is_ended_and_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(formats, "VALIDATION_LIMIT_S", 0.5)
    # Refused at the intake; here it shows what a pattern that slips through would do.
    evil = {"type": "json_schema", "schema": {"pattern": "^(a+)+$"}}
    began = time.monotonic()
    answer = await shaped('"' + "a" * 60 + '!"', evil)
    assert answer.problem == "the schema could not be applied to it"
    assert time.monotonic() - began < formats.VALIDATION_LIMIT_S + 20
