"""The promise of `content/shape.py`: the JSON of an answer is found, and what is none is told."""

import pytest

from rkllm_mqtt.content.shape import NotJson, json_of, request_again, request_for


@pytest.mark.parametrize(
    ("answer", "text", "value"),
    [
        ('{"a": 1}', '{"a": 1}', {"a": 1}),
        (' [1, "x"]\n', '[1, "x"]', [1, "x"]),
        ("21", "21", 21),
        ('```json\n{"a": 1}\n```', '{"a": 1}', {"a": 1}),
        ('Here it is:\n```\n{"a": 1}\n```\nBye.', '{"a": 1}', {"a": 1}),
        ('Sure! {"a": {"b": 1}} I hope that helps.', '{"a": {"b": 1}}', {"a": {"b": 1}}),
        ("{'a': True,}", '{"a": true}', {"a": True}),
        ('{"a": "Küche"', '{"a": "Küche"}', {"a": "Küche"}),
    ],
)
def test_the_json_of_an_answer_is_found(answer, text, value):
    assert json_of(answer) == (text, value)


@pytest.mark.parametrize("answer", ["", "No.", "{" * 50_000, "NaN", "[" * 20_000 + "]" * 20_000])
def test_an_answer_without_json_says_so(answer):
    with pytest.raises(NotJson, match="no JSON"):
        json_of(answer)


def test_the_wish_holds_the_schema_the_same_way_each_time():
    one = request_for({"type": "json_schema", "schema": {"b": 1, "a": {"d": 1, "c": 2}}})
    assert one == request_for({"type": "json_schema", "schema": {"a": {"c": 2, "d": 1}, "b": 1}})
    assert one.endswith('{"a":{"c":2,"d":1},"b":1}')
    assert "JSON object" in request_for({"type": "json_object"})
    assert "it is no JSON" in request_again("it is no JSON")
