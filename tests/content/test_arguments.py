"""The promise of `content/arguments.py`: one reading is taken, two are left to the tool."""

import pytest

from rkllm_mqtt.content.arguments import fit_arguments


def schema(**properties):
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        ("integer", "21", 21),
        ("integer", 21.0, 21),
        ("integer", "21.5", "21.5"),
        ("integer", "twenty", "twenty"),
        ("integer", True, True),
        ("number", "21.5", 21.5),
        ("boolean", "True", True),
        ("boolean", "false", False),
        ("boolean", "yes", "yes"),
        ("boolean", 1, 1),
        ("string", 21, "21"),
        ("string", "21", "21"),
        ("string", True, True),
        ("array", "light", ["light"]),
        ("array", '["light", "fan"]', ["light", "fan"]),
        ("array", 5, [5]),
        ("object", '{"a": 1}', {"a": 1}),
        ("object", "{'a': 1,}", {"a": 1}),
        ("object", "a", "a"),
        (["integer", "null"], "5", 5),
        (["integer", "null"], "null", None),
        ("unheard-of", "x", "x"),
    ],
)
def test_a_value_becomes_what_its_schema_asks_where_that_is_clear(kind, written, meant):
    fitted = fit_arguments({"x": written}, schema(x={"type": kind}))
    assert fitted == {"x": meant}
    assert type(fitted["x"]) is type(meant)


def test_values_deep_in_lists_and_objects_are_reached():
    asked = schema(a={"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}})
    assert fit_arguments({"a": [{"n": "1"}, {"n": 2}]}, asked) == {"a": [{"n": 1}, {"n": 2}]}


def test_an_enum_is_found_in_other_letters_but_not_between_two():
    asked = schema(x={"type": "string", "enum": ["Kitchen", "Hall"]}, y={"enum": ["a", "A"]})
    assert fit_arguments({"x": " kitchen", "y": "a"}, asked) == {"x": "Kitchen", "y": "a"}
    assert fit_arguments({"x": "cellar"}, asked) == {"x": "cellar"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (None, {}),
        ("", {}),
        ('{"x": "1"}', {"x": 1}),
        ('"{\\"x\\": 1}"', {"x": '{"x": 1}'}),
        (5, {"x": 5}),
        ("5", {"x": 5}),
        ([1], {"x": [1]}),
    ],
)
def test_the_whole_may_be_a_string_or_the_value_of_the_only_parameter(written, meant):
    assert fit_arguments(written, schema(x={"type": "integer"})) == meant


def test_a_single_value_for_several_parameters_is_no_argument():
    assert fit_arguments("5", schema(x={}, y={})) is None
    assert fit_arguments("5", {**schema(x={}, y={}), "required": ["y"]}) == {"y": 5}


def test_null_is_dropped_where_nobody_asked_for_it():
    asked = {**schema(a={"type": "string"}, b={"type": ["string", "null"]}, c={}), "required": ["c"]}
    assert fit_arguments({"a": None, "b": None, "c": None, "d": None}, asked) == {"b": None, "c": None}


def test_a_schema_that_is_none_changes_nothing():
    for odd in ({}, {"properties": []}, {"properties": {"x": 5}}, {"properties": {"x": {"type": {}}}}):
        assert fit_arguments({"x": "1", "y": [{}]}, odd) == {"x": "1", "y": [{}]}
