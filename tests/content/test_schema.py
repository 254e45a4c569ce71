"""The promise of `content/schema.py`: a schema that can be used passes, any other is refused at its place."""

import pytest

from rkllm_mqtt.content.schema import MAX_DEPTH, SchemaRefused, check_schema, depth_of

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.org/person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "age": {"type": ["integer", "null"], "minimum": 0, "multipleOf": 1},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}, "maxItems": 5},
        "kind": {"enum": ["a", 1, None]},
        "any": True,
    },
    "patternProperties": {"^x-": {}},
    "$defs": {"friend": {"anyOf": [{"type": "string"}, {"$ref": "#"}]}, "a/b": {"not": {"type": "null"}}},
    "allOf": [{"$ref": "#/$defs/a~1b"}],
    "required": ["name"],
    "additionalProperties": False,
}


def nested(levels):
    schema = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def test_a_schema_as_people_write_it_passes():
    check_schema(PERSON)
    check_schema({})


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"a": {"$ref": "https://example.org/x"}}}, "schema.properties.a.$ref"),
        ({"$ref": "other.json#/x"}, "schema.$ref"),
        ({"$ref": "#/$defs/none"}, "schema.$ref"),
        ({"$ref": "#"}, "schema.$ref"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "$ref"),
        ({"items": {"$id": "https://example.org/x"}}, "schema.items.$id"),
        ({"$dynamicRef": "#x"}, "schema.$dynamicRef"),
        ({"type": "text"}, "schema.type"),
        ({"items": {"type": 5}}, "schema.items.type"),
        ({"properties": []}, "schema.properties"),
        ({"properties": {"a": "string"}}, "schema.properties.a"),
        ({"items": [{}]}, "schema.items"),
        ({"anyOf": []}, "schema.anyOf"),
        ({"required": "a"}, "schema.required"),
        ({"enum": []}, "schema.enum"),
        ({"minLength": "1"}, "schema.minLength"),
        ({"maxItems": -1}, "schema.maxItems"),
        ({"multipleOf": 0}, "schema.multipleOf"),
        ({"pattern": "(a+)+"}, "schema.pattern"),
        ({"pattern": 5}, "schema.pattern"),
        ({"patternProperties": {"(a+)+": {}}}, "schema.pattern"),
        (nested(MAX_DEPTH + 1), "schema"),
        ({"const": float("nan")}, "schema"),
        ({"description": "x" * 40_000}, "schema"),
        ({"anyOf": [{}] * 1_001}, "schema"),
    ],
)
def test_another_is_refused_with_its_place(schema, place):
    with pytest.raises(SchemaRefused, match=rf"{place}".replace("$", r"\$").replace(".", r"\.")):
        check_schema(schema)


@pytest.mark.parametrize(("value", "depth"), [(1, 0), ([], 0), ([1], 1), ({"a": [{"b": 1}]}, 3)])
def test_depth_counts_the_levels_of_a_value(value, depth):
    assert depth_of(value) == depth
