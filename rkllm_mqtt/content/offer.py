"""The tools that a request offers, found again by what a model makes of their names."""

import re
from collections import Counter
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
        self._folded = _unique({name: _fold(name) for name in tools})
        self._bare = _unique({name: _fold(_bare(name)) for name in tools})

    def find(self, written: str) -> str | None:
        """Return the tool that is meant; None when none was offered by this name.

        `turn-on`, `Turn_On` and `functions.turn_on` mean `turn_on` where only one tool can be meant, and so
        does `TurnOn` mean `light__TurnOn`: small models forget the space that a house puts its names in.
        """
        name = without_prefix(written.strip())
        return self._exact.get(name) or self._folded.get(_fold(name)) or self._bare.get(_fold(name))

    def may_become(self, written: str) -> bool:
        """Return whether a name that has begun like this may still mean an offered tool."""
        if any(prefix.startswith(written) for prefix in _PREFIXES):
            return True
        begun = _fold(without_prefix(written))
        return any(_fold(name).startswith(begun) for name in self._schemas) or any(
            fold.startswith(begun) for fold in self._bare
        )

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


def _bare(name: str) -> str:
    return name.rpartition("__")[2]


def _unique(folds: Mapping[str, str]) -> dict[str, str]:
    """Return the names by their folds, without the folds that two names share."""
    counts = Counter(folds.values())
    return {fold: name for name, fold in folds.items() if fold and counts[fold] == 1}


def _fold(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
