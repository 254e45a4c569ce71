"""Find the JSON of an answer that was asked for in JSON, and tell the model what is wrong with it.

Pure. Models wrap JSON into a code fence, or put a sentence in front of it; that is taken off, and broken
punctuation is mended.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from rkllm_mqtt.content.repair import repaired

_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)


class NotJson(Exception):
    """There is no JSON value in an answer; the message says why."""


def json_of(answer: str) -> tuple[str, Any]:
    """Return the JSON text of an answer, and its value.

    The text is the model's own where that is JSON; numbers that JSON has not are none.

    Raises:
        NotJson: There is nothing that can be read as one.
    """
    text = answer.strip()
    fenced = _FENCE.search(text)
    first_fault = None
    for candidate in dict.fromkeys((text, fenced[1].strip() if fenced else text, _from_first_bracket(text))):
        try:
            return candidate, json.loads(candidate, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            first_fault = first_fault or exc
    inside = fenced[1] if fenced else _from_first_bracket(text)
    value = repaired(inside) if inside.lstrip()[:1] in ("{", "[") else None
    if not isinstance(value, (dict, list)):
        raise NotJson(f"it is no JSON: {first_fault}")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False), value
    except (ValueError, RecursionError) as exc:
        raise NotJson(f"it is no JSON: {exc}") from exc


def request_for(shape: Mapping[str, Any]) -> str:
    """Return the words that ask a model for an answer of a shape, to stand behind the user's own."""
    if shape["type"] == "json_object":
        return "\n\nAnswer with nothing but one JSON object."
    schema = json.dumps(shape["schema"], ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return f"\n\nAnswer with nothing but JSON that is valid against this JSON schema:\n{schema}"


def request_again(problem: str) -> str:
    """Return the words that ask a model to correct its answer."""
    return f"This answer cannot be used: {problem}\nGive the corrected answer, with nothing but JSON."


def _from_first_bracket(text: str) -> str:
    """Return a text from its first bracket to the last that may close it."""
    found = re.search(r"[\[{]", text)
    if found is None:
        return text
    end = text.rfind("}" if found[0] == "{" else "]")
    return text[found.start() : end + 1] if end > found.start() else text[found.start() :]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
