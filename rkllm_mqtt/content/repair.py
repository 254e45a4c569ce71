"""Read JSON as models write it: with trailing commas, single quotes, Python's words, missing brackets."""

import json
import re
from typing import Any

MAX_REPAIRED_CHARS = 16_384
"""Longer text is taken as it is or not at all: mending costs more than in proportion to the text."""

_BETWEEN = re.compile(r"[\s;,\])}]*")


def repaired(text: str) -> Any:
    """Return the value that a broken JSON text means; None when nothing can be made of it."""
    if len(text) > MAX_REPAIRED_CHARS:
        return None
    # Few answers need it: the process that reads them does not pay for it before.
    import json_repair

    try:
        return json_repair.loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return None


def json_values(text: str, *, mend: bool) -> list[Any]:
    """Return the JSON values that stand one after the other in a text, and nothing of what follows them.

    Args:
        text: Values with white space, commas, semicolons or surplus brackets between them.
        mend: Read what is broken as well as it can be; else a broken value gives an empty list.
    """
    # A line break within a string is what models write, and a number that JSON has not is no value.
    decoder = json.JSONDecoder(strict=False, parse_constant=lambda _: None)
    values: list[Any] = []
    at = 0
    while True:
        between = _BETWEEN.match(text, at)
        at = between.end() if between else at
        if at == len(text) or text[at] not in '{["':
            return values
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value = repaired(text[at:]) if mend else None
            return [*values, value] if isinstance(value, (dict, list)) else values if mend else []
        values.append(value)
