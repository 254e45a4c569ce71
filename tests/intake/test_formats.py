"""The promise of `intake/formats.py`: a shape of the API is taken, one that cannot be kept is refused."""

import pytest

from rkllm_mqtt.core.errors import RequestError
from rkllm_mqtt.intake.formats import format_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("wish", "shape"),
    [
        (None, None),
        ({}, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
            {"type": "json_schema", "schema": SCHEMA},
        ),
        (
            {"type": "json_schema", "schema": {"$schema": "x", "$id": "y", **SCHEMA}},
            {"type": "json_schema", "schema": SCHEMA},
        ),
    ],
)
def test_each_shape_of_the_api_is_understood(wish, shape):
    assert format_of(wish) == shape


@pytest.mark.parametrize(
    "wish",
    [
        {"type": "xml"},
        {"type": ["json_object"]},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"schema": "x"}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "https://example.org"}}},
        {"type": "json_schema", "json_schema": {"schema": {"pattern": "(a+)+$"}}},
    ],
)
def test_a_shape_that_cannot_be_kept_is_refused_with_a_hint(wish):
    with pytest.raises(RequestError, match=r"^response_format") as caught:
        format_of(wish)
    assert caught.value.fault.code == "invalid_request"
    assert caught.value.fault.hint
