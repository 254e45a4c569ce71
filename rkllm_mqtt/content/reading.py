"""Read the tool calls out of a piece of text that is meant to hold some, in whatever form a model wrote them.

Pure. Families differ in what they were trained to write, and small models mix the forms: so each is tried,
and what decides is whether an offered tool comes out of it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from rkllm_mqtt.content.arguments import fit_arguments
from rkllm_mqtt.content.offer import Offer
from rkllm_mqtt.content.pythonic import python_calls
from rkllm_mqtt.content.repair import json_values, repaired

NAME_KEYS = ("name", "function", "function_name", "tool_name", "tool")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "params", "input")
LIST_KEYS = ("tool_calls", "function_calls", "calls")
SEPARATOR = "<｜tool▁sep｜>"
"""Stands between the parts of a call of DeepSeek's models."""

_FENCE = re.compile(r"\s*```[ \t]*\w*[ \t]*\r?\n?(.*?)(?:```\s*)?\Z", re.DOTALL)
_TAGGED = re.compile(r"<function=([^>\s]+)>(.*?)(</function>|\Z)", re.DOTALL)
_TAGGED_VALUE = re.compile(r"<parameter=([^>\s]+)>(.*?)(</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
# Mistral since its tokenizer 11, with or without the tokens between name and arguments; FunctionGemma.
_NAMED = re.compile(r"[\s;,]*(?:call:)?([\w.\-]+)(?:\[CALL_ID\][\w\-]*)?\s*(?:\[ARGS\])?\s*(?=\{)")
_SEPARATED = re.compile(r"\s*([\w.\-]+)(.*)\Z", re.DOTALL)
_ESCAPED = re.compile(r"<escape>(.*?)<escape>", re.DOTALL)


class ToolCall(Struct, frozen=True):
    """One call of an offered tool."""

    name: str
    """As the tool was offered."""
    arguments: str
    """A JSON object."""


def read_calls(text: str, offer: Offer, *, bare: bool = False, mend: bool = True) -> list[ToolCall]:
    """Return the calls of offered tools in a text; none when it is something else.

    Args:
        text: What stood between the markers of a call, or looked like one.
        offer: The tools.
        bare: No marker said that this is a call, so an object needs arguments to be one.
        mend: Also read what is broken. Not to be done with an answer that was cut off: half an argument
            (`2` of `21`) would be a wrong one.
    """
    fenced = _FENCE.match(text)
    body = (fenced[1] if fenced else text).strip()
    if not body:
        return []
    if SEPARATOR in body:
        return _separated_calls(body, offer, mend)
    if body.startswith("<function="):
        return _tagged_calls(body, offer, mend)
    if body[0] in '{["' and (calls := _json_calls(body, offer, bare, mend)):
        return calls
    if calls := _named_calls(body, offer, mend):
        return calls
    return [
        call
        for name, arguments in python_calls(body, offer)
        if (call := _call(name, arguments, offer)) is not None
    ]


def _json_calls(body: str, offer: Offer, bare: bool, mend: bool) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for value in json_values(body, mend=mend):
        calls += _calls_in(value, offer, bare)
    return calls


def _calls_in(value: object, offer: Offer, bare: bool) -> list[ToolCall]:
    if isinstance(value, list):
        return [call for item in value if isinstance(item, Mapping) for call in _calls_in(item, offer, bare)]
    if isinstance(value, str):
        return _calls_in(json_values(value, mend=True), offer, bare)
    if not isinstance(value, Mapping):
        return []
    for key in LIST_KEYS:
        if isinstance(value.get(key), list):
            return _calls_in(value[key], offer, bare)
    function = value.get("function")
    if isinstance(function, Mapping):
        value = {**{key: value[key] for key in ARGUMENT_KEYS if key in value}, **function}
    return _calls_of_object(value, offer, bare)


def _calls_of_object(value: Mapping[str, Any], offer: Offer, bare: bool) -> list[ToolCall]:
    named = ((key, offer.find(value[key])) for key in NAME_KEYS if isinstance(value.get(key), str))
    name_key, name = next(((key, name) for key, name in named if name is not None), ("", None))
    if name is None:
        return _keyed_by_name(value, offer)
    if "description" in value:  # the signature of the tool, repeated
        return []
    key = next((key for key in ARGUMENT_KEYS if key in value), None)
    if key is not None:
        arguments: object = value[key]
    else:
        rest = {name: item for name, item in value.items() if name not in (name_key, "type", "id")}
        if rest.keys() - offer.properties(name).keys():
            return []
        if not rest and bare and offer.required(name):
            return []
        arguments = rest
    call = _call(name, arguments, offer)
    return [] if call is None else [call]


def _keyed_by_name(value: Mapping[str, Any], offer: Offer) -> list[ToolCall]:
    """Read `{"turn_on": {"name": "lamp"}}`."""
    if len(value) != 1:
        return []
    ((written, arguments),) = value.items()
    name = offer.find(str(written))
    call = _call(name, arguments, offer) if name is not None and isinstance(arguments, Mapping) else None
    return [] if call is None else [call]


def _tagged_calls(body: str, offer: Offer, mend: bool) -> list[ToolCall]:
    """Read `<function=NAME>` with one tag for each parameter (Qwen3-Coder) or a JSON object (Llama 3.1)."""
    calls = []
    for written, inside, end in _TAGGED.findall(body):
        name = offer.find(written)
        if name is None or not (end or mend):
            continue
        if inside.lstrip().startswith("{"):
            values = json_values(inside.strip(), mend=mend)
            arguments: object = values[0] if values else None
        else:
            arguments = {key: value.strip() for key, value, _ in _TAGGED_VALUE.findall(inside)}
        call = None if arguments is None else _call(name, arguments, offer)
        if call is not None:
            calls.append(call)
    return calls


def _separated_calls(body: str, offer: Offer, mend: bool) -> list[ToolCall]:
    """Read `function`, the separator, name and fenced JSON (DeepSeek V3), or name, separator, JSON (V3.1)."""
    name, _, rest = body.partition(SEPARATOR)
    if name.strip() == "function" and not rest.lstrip().startswith("{"):
        found = _SEPARATED.match(rest)
        if found is None:
            return []
        name, rest = found[1], found[2]
    fenced = _FENCE.match(rest)
    inside = (fenced[1] if fenced else rest).strip()
    tool = offer.find(name)
    if tool is None or not (inside or mend):
        return []
    values = json_values(inside, mend=mend) if inside else [{}]
    call = _call(tool, values[0], offer) if values and isinstance(values[0], Mapping) else None
    return [] if call is None else [call]


def _named_calls(body: str, offer: Offer, mend: bool) -> list[ToolCall]:
    """Read names with a JSON object behind each."""
    calls: list[ToolCall] = []
    body = _ESCAPED.sub(lambda match: json.dumps(match[1]), body)
    decoder = json.JSONDecoder(strict=False, parse_constant=lambda _: None)
    at = 0
    while found := _NAMED.match(body, at):
        name = offer.find(found[1])
        try:
            arguments, at = decoder.raw_decode(body, found.end())
        except (ValueError, RecursionError):
            arguments, at = repaired(body[found.end() :]) if mend else None, len(body)
        call = _call(name, arguments, offer) if name is not None and isinstance(arguments, Mapping) else None
        if call is None:
            break
        calls.append(call)
    return calls


def _call(name: str, arguments: object, offer: Offer) -> ToolCall | None:
    fitted = fit_arguments(arguments, offer.schema(name))
    if fitted is None:
        return None
    try:
        return ToolCall(name, json.dumps(fitted, ensure_ascii=False, allow_nan=False))
    except (ValueError, RecursionError):
        return None
