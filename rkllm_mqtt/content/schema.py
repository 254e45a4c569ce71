"""Say of a JSON schema that a sender brings whether an answer can be held against it.

Pure, and quick: it runs while a request is taken in. What it lets pass is applied elsewhere, by a library.

Rule 1: nothing is fetched: a reference leads to a place in the same schema, or is refused.
Rule 2: what is refused is refused before anything is computed, with the place of the fault.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rkllm_mqtt.content.patterns import why_refused

MAX_SCHEMA_BYTES = 32_768
MAX_DEPTH = 32
"""Levels of objects and lists, in the schema's own text."""
MAX_NODES = 1_000
"""Schemas within the schema."""

TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = (
    "items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
    "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ELSEWHERE = ("$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor")


class SchemaRefused(Exception):
    """A schema that no answer is held against; the message names the place."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Pass when the schema can be used.

    Raises:
        SchemaRefused: It is too large or deep, is no schema, refers elsewhere, or has a dangerous pattern.
    """
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as exc:
        raise SchemaRefused("schema: it is nested too deeply or holds a number that JSON has not") from exc
    if size > MAX_SCHEMA_BYTES:
        raise SchemaRefused(f"schema: it has {size} bytes, the limit is {MAX_SCHEMA_BYTES}")
    if depth_of(schema) > MAX_DEPTH:
        raise SchemaRefused(f"schema: it is nested deeper than {MAX_DEPTH} levels")
    waiting: list[tuple[str, Any]] = [("schema", schema)]
    nodes = 0
    while waiting:
        where, node = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES:
            raise SchemaRefused(f"schema: it holds more than {MAX_NODES} schemas")
        if isinstance(node, Mapping):
            _check_node(where, node, schema)
            waiting.extend(_within(where, node))
        elif not isinstance(node, bool):
            raise SchemaRefused(f"{where}: a schema is an object, true or false")


def depth_of(value: object) -> int:
    """Return how deeply objects and lists are nested in a JSON value; a bare value has depth 0."""
    depth, level = 0, [value]
    while level := [
        item
        for outer in level
        if isinstance(outer, (Mapping, list, tuple))
        for item in (outer.values() if isinstance(outer, Mapping) else outer)
    ]:
        depth += 1
    return depth


def _within(where: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in _MAPS:
        if key in node:
            if not isinstance(node[key], Mapping):
                raise SchemaRefused(f"{where}.{key}: it is no object")
            yield from ((f"{where}.{key}.{name[:64]}", inner) for name, inner in node[key].items())
    for key in _LISTS:
        if key in node:
            if not isinstance(node[key], list) or not node[key]:
                raise SchemaRefused(f"{where}.{key}: it is no list of schemas")
            yield from ((f"{where}.{key}.{place}", inner) for place, inner in enumerate(node[key]))
    yield from ((f"{where}.{key}", node[key]) for key in _SINGLE if key in node)


def _check_node(where: str, node: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    for key in _ELSEWHERE:
        if key in node and not (key == "$id" and node is root):
            raise SchemaRefused(f"{where}.{key}: references lead to a place in the same schema only")
    if "$ref" in node:
        _check_reference(where, node["$ref"], root)
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        raise SchemaRefused(f"{where}.type: it is none of {', '.join(sorted(TYPES))}")
    required = node.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise SchemaRefused(f"{where}.required: it is no list of names")
    if "enum" in node and not (isinstance(node["enum"], list) and node["enum"]):
        raise SchemaRefused(f"{where}.enum: it is no list of values")
    _check_numbers(where, node)
    patterns = [node["pattern"]] if "pattern" in node else []
    if isinstance(node.get("patternProperties"), Mapping):
        patterns += node["patternProperties"]
    for pattern in patterns:
        why = why_refused(pattern) if isinstance(pattern, str) else "is no text"
        if why:
            raise SchemaRefused(f"{where}.pattern: a pattern {why}")


def _check_numbers(where: str, node: Mapping[str, Any]) -> None:
    for key in (*_COUNTS, *_NUMBERS):
        value = node.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SchemaRefused(f"{where}.{key}: it is no number")
        if (key in _COUNTS and (value < 0 or value % 1)) or (key == "multipleOf" and value <= 0):
            raise SchemaRefused(f"{where}.{key}: {value} is out of range")


def _check_reference(where: str, reference: object, root: Mapping[str, Any]) -> None:
    """Follow a reference; one that leads through references to itself would never end."""
    seen: set[str] = set()
    while True:
        if not isinstance(reference, str) or not reference.startswith("#") or "%" in reference:
            raise SchemaRefused(f"{where}.$ref: references lead to a place in the same schema only")
        if reference in seen:
            raise SchemaRefused(f"{where}.$ref: it leads to itself")
        seen.add(reference)
        target = _target(reference, root)
        if not isinstance(target, (Mapping, bool)):
            raise SchemaRefused(f"{where}.$ref: there is nothing at {reference[:64]!r}")
        if isinstance(target, bool) or "$ref" not in target:
            return
        reference = target["$ref"]


def _target(reference: str, root: Mapping[str, Any]) -> object:
    place: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping) and key in place:
            place = place[key]
        elif isinstance(place, list) and key.isdigit() and int(key) < len(place):
            place = place[int(key)]
        else:
            return None
    return place
