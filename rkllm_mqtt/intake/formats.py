"""The `response_format` of a request, checked before anything is computed for it."""

from collections.abc import Mapping
from typing import Any

from rkllm_mqtt.content.schema import SchemaRefused, check_schema
from rkllm_mqtt.core.errors import Code, RequestError


def format_of(wish: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the asked shape of an answer: `type` and, of `json_schema`, `schema`; None where any will do.

    Args:
        wish: As in the OpenAI API; the schema may also stand beside `type`.

    Raises:
        RequestError: The type is unknown, or no answer can be held against the schema.
    """
    kind = (wish or {}).get("type", "text")
    if kind == "text" or wish is None:
        return None
    if kind == "json_object":
        return {"type": kind}
    if kind != "json_schema":
        raise _refusal("type: it is none of text, json_object, json_schema", "Ask for one of these.")
    named = wish.get("json_schema")
    schema = (named if isinstance(named, Mapping) else wish).get("schema")
    if not isinstance(schema, Mapping):
        raise _refusal(
            "json_schema.schema: there is no schema",
            'Send {"type": "json_schema", "json_schema": {"schema": {...}}}.',
        )
    try:
        check_schema(schema)
    except SchemaRefused as exc:
        raise _refusal(str(exc), "Simplify it: references within it, plain patterns, few levels.") from exc
    # Which draft it names makes no difference: it is read as the newest, and nothing is fetched.
    return {"type": kind, "schema": {key: schema[key] for key in schema if key not in ("$schema", "$id")}}


def _refusal(message: str, hint: str) -> RequestError:
    return RequestError(Code.INVALID_REQUEST, f"response_format.{message}", hint)
