"""Fit the arguments that a model wrote to the schema of its tool, where only one reading makes sense.

Pure. A small model writes `"21"` for 21, `light` for `["light"]`, or the whole object as a string. What could
mean two things is left as it is: the tool's owner says what is wrong with it, and the model tries again.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rkllm_mqtt.content.repair import repaired

_DEEPEST = 16


def fit_arguments(written: object, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments as an object; None when they cannot be one.

    Args:
        written: What stood in the place of the arguments: an object, its JSON in a string, or one value.
        schema: Of the tool's parameters.
    """
    value = _parsed(written) if isinstance(written, str) else written
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        only = _only_property(schema)
        if only is None:
            return None
        value = {only: value}
    fitted = _fit_object(value, schema, 0)
    required = schema.get("required")
    needed = required if isinstance(required, (list, tuple)) else ()
    # An absent optional argument and one that is null mean the same to its writer, not to every tool.
    return {
        key: item
        for key, item in fitted.items()
        if item is not None or key in needed or _allows(_of(schema, key), "null")
    }


def _parsed(text: str) -> object:
    """Return the JSON in a string, or the string itself where it holds none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        begun = text.strip()[:1]
        value = repaired(text) if begun in ("{", "[") else None
        return text if value is None else value


def _only_property(schema: Mapping[str, Any]) -> str | None:
    """Return the one parameter that a single value can be meant for."""
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, Mapping) and len(properties) == 1:
        return str(next(iter(properties)))
    if isinstance(required, (list, tuple)) and len(required) == 1:
        return str(required[0])
    return None


def _fit_object(value: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    return {str(key): _fit(item, _of(schema, key), depth + 1) for key, item in value.items()}


def _of(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    properties = schema.get("properties")
    found = properties.get(key) if isinstance(properties, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _fit(value: Any, schema: Mapping[str, Any], depth: int) -> Any:
    types = _types(schema)
    if depth > _DEEPEST:
        return value
    if types and not any(_is(value, kind) for kind in types):
        for kind in types:
            value = _converted(value, kind)
            if _is(value, kind):
                break
    if isinstance(value, Mapping):
        return _fit_object(value, schema, depth)
    items = schema.get("items")
    if isinstance(value, list) and isinstance(items, Mapping):
        return [_fit(item, items, depth + 1) for item in value]
    return _chosen(value, schema.get("enum"))


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return (kind,)
    return [str(one) for one in kind] if isinstance(kind, (list, tuple)) else ()


def _allows(schema: Mapping[str, Any], kind: str) -> bool:
    return kind in _types(schema)


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, Mapping)
        case "null":
            return value is None
    return True


def _converted(value: Any, kind: str) -> Any:
    """Return a value as another JSON type; itself where that is not the one thing it can mean."""
    if isinstance(value, str):
        return _from_text(value.strip(), value, kind)
    if kind == "string" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "array" and value is not None and not isinstance(value, Mapping):
        return [value]
    return value


def _from_text(text: str, value: str, kind: str) -> Any:
    match kind:
        case "boolean":
            return {"true": True, "false": False}.get(text.lower(), value)
        case "null":
            return None if text.lower() in ("null", "none", "") else value
        case "integer" | "number":
            try:
                number = json.loads(text)
            except (ValueError, RecursionError):
                return value
            if kind == "integer" and isinstance(number, float) and number.is_integer():
                number = int(number)
            return number if _is(number, kind) else value
        case "array" | "object":
            inner = _parsed(text)
            if _is(inner, kind):
                return inner
            return [value] if kind == "array" else value
    return value


def _chosen(value: Any, items: object) -> Any:
    """Return the item of an enum that is meant in other letters."""
    if not isinstance(items, (list, tuple)) or not isinstance(value, str) or value in items:
        return value
    alike = [item for item in items if isinstance(item, str) and item.casefold() == value.strip().casefold()]
    return alike[0] if len(alike) == 1 else value
