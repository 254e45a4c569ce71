"""Offer Home Assistant's tools to a small model: few, short, always in the same order and bytes.

Tools that only some satellites have come last, so that all of them share the longest prefix.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import probatio
from homeassistant.helpers import llm

from .const import TOOLS_CONTROL, TOOLS_SELECTED

CONTROL_NAMES = frozenset(
    {
        "HassTurnOn",
        "HassTurnOff",
        "HassLightSet",
        "HassSetPosition",
        "HassClimateSetTemperature",
        "HassFanSetSpeed",
        "GetLiveContext",
        "GetDateTime",
    }
)
"""What switches things or asks for their state; the choice for models with a small context."""
_TIMER = re.compile(r"Timer", re.IGNORECASE)
_WORDS = re.compile(r"[a-z0-9]+")
_MAX_DESCRIPTION = 300


def bare_name(name: str) -> str:
    """Return a tool's name without the domain that it begins with."""
    return name.rpartition("__")[2]


def choose_tools(tools: Iterable[llm.Tool], choice: str, selected: Collection[str]) -> list[llm.Tool]:
    """Return the tools of a choice, in the order in which they are always offered."""
    chosen = [
        tool
        for tool in tools
        if (choice != TOOLS_CONTROL or bare_name(tool.name) in CONTROL_NAMES)
        and (choice != TOOLS_SELECTED or tool.name in selected)
    ]
    return sorted(chosen, key=lambda tool: (bool(_TIMER.search(tool.name)), tool.name))


def format_tool(tool: llm.Tool, serializer: Callable[[Any], Any] | None) -> dict[str, Any]:
    """Return a tool in the shape of the OpenAI API, without words that only repeat names."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description and not _repeats(tool.description, bare_name(tool.name)):
        function["description"] = " ".join(tool.description.split())[:_MAX_DESCRIPTION]
    function["parameters"] = _compact(
        probatio.to_openapi(tool.parameters, custom_serializer=serializer, openapi_version="3.1.0")
    )
    return {"type": "function", "function": function}


def format_tools(tools: Iterable[llm.Tool], serializer: Callable[[Any], Any] | None) -> list[dict[str, Any]]:
    """Return tools in the shape of the OpenAI API, in canonical bytes."""
    return [json.loads(canonical(format_tool(tool, serializer))) for tool in tools]


def canonical(value: Any) -> str:
    """Return compact JSON with sorted keys: equal values are equal bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)


def _compact(schema: Any, name: str = "") -> Any:
    if isinstance(schema, list):
        return [_compact(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    compact: dict[str, Any] = {}
    for key, value in schema.items():
        if value is None or (key in ("required", "properties") and not value and name):
            continue
        if key == "description" and isinstance(value, str) and _repeats(value, name):
            continue
        if key == "properties" and isinstance(value, Mapping):
            compact[key] = {each: _compact(sub, each) for each, sub in value.items()}
        else:
            compact[key] = _compact(value)
    return compact


def _repeats(description: str, name: str) -> bool:
    words = {*_WORDS.findall(description.lower())} - {"the", "a", "an", "of", "to"}
    known = {*_WORDS.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower())}
    return words <= known


# what comes back


def find_tool(tools: Iterable[llm.Tool], name: str) -> llm.Tool | None:
    """Return the tool that a model means; small models forget the domain and change the case."""
    by_name = {tool.name: tool for tool in tools}
    if name in by_name:
        return by_name[name]
    wanted = _plain(name)
    for key in (_plain, lambda each: _plain(bare_name(each))):
        found = [tool for each, tool in by_name.items() if key(each) == wanted]
        if len(found) == 1:
            return found[0]
    found = [tool for each, tool in by_name.items() if _plain(bare_name(each)) == _plain(bare_name(name))]
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_call(
    call: Mapping[str, Any],
    tools: Iterable[llm.Tool],
    serializer: Callable[[Any], Any] | None,
    call_id: str,
) -> llm.ToolInput:
    """Return what a call of the daemon means; an unknown tool is left to Home Assistant to refuse.

    Args:
        call: In the shape of the OpenAI API.
        tools: Those that were offered.
        serializer: Of the API that they belong to.
        call_id: Unique in the conversation.
    """
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    name = str(function.get("name", ""))
    tool = find_tool(tools, name)
    schema: Mapping[str, Any] = {}
    if tool is not None:
        schema = probatio.to_openapi(tool.parameters, custom_serializer=serializer, openapi_version="3.1.0")
    arguments = _repair(_parsed(function.get("arguments")), schema)
    return llm.ToolInput(
        tool_name=tool.name if tool is not None else name,
        tool_args=arguments if isinstance(arguments, dict) else {},
        id=call_id,
    )


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _repair(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return a value as its schema wants it, as far as that is not a guess."""
    wanted = schema.get("type")
    if wanted in ("array", "object"):
        value = _parsed(value)
    if wanted == "array" or (wanted is None and isinstance(value, list)):
        items = value if isinstance(value, list) else [value]
        return [_repair(each, schema.get("items") or {}) for each in items]
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        return {
            str(key): _repair(each, properties.get(key) or {})
            for key, each in value.items()
            if each is not None and each != ""
        }
    if wanted in ("integer", "number") and isinstance(value, str):
        return _number(value, wanted)
    if wanted == "boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if wanted == "string" and isinstance(value, list) and len(value) == 1:
        return value[0]
    return value


def _number(text: str, wanted: str) -> Any:
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        return text
    return int(number) if wanted == "integer" and number.is_integer() else number
