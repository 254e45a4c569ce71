"""The tools that a request offers, found again by what a model makes of their names."""

import re
from collections.abc import Mapping
from typing import Any

_PREFIXES = ("default_api.", "functions.", "function.", "tools.")
"""Name spaces that models were trained with and put in front of a name."""


class Offer:
    """The tools of one request.

    Args:
        tools: JSON schema of the parameters by the tool's name, as the sender wrote it.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._schemas = dict(tools)
        self._exact = {name: name for name in tools}
        folded: dict[str, list[str]] = {}
        for name in tools:
            folded.setdefault(_fold(name), []).append(name)
        self._folded = {fold: names[0] for fold, names in folded.items() if fold and len(names) == 1}

    def find(self, written: str) -> str | None:
        """Return the tool that is meant; None when none was offered by this name.

        `turn-on`, `Turn_On` and `functions.turn_on` mean `turn_on` where only one tool can be meant.
        """
        name = without_prefix(written.strip())
        return self._exact.get(name) or self._folded.get(_fold(name))

    def may_become(self, written: str) -> bool:
        """Return whether a name that has begun like this may still mean an offered tool."""
        if any(prefix.startswith(written) for prefix in _PREFIXES):
            return True
        begun = _fold(without_prefix(written))
        return any(_fold(name).startswith(begun) for name in self._schemas)

    def schema(self, name: str) -> Mapping[str, Any]:
        """Return the JSON schema of a tool's parameters."""
        return self._schemas[name]

    def properties(self, name: str) -> Mapping[str, Any]:
        """Return the schemas of a tool's parameters by their names."""
        properties = self._schemas[name].get("properties")
        return properties if isinstance(properties, Mapping) else {}

    def required(self, name: str) -> tuple[str, ...]:
        """Return the parameters that a tool cannot do without."""
        required = self._schemas[name].get("required")
        return tuple(map(str, required)) if isinstance(required, (list, tuple)) else ()


def without_prefix(name: str) -> str:
    """Return a name without the name space in front of it."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _fold(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
