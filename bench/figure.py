"""A figure of the table: what was measured, beside what, against which goal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure shall be; the goals are those of the README's table."""

    bound: float
    side: Literal["at most", "at least", "above"] = "at most"
    text: str = ""
    """Shown instead of the bound."""

    def is_met(self, value: float) -> bool:
        """Return whether a value is on the right side."""
        if self.side == "at most":
            return value <= self.bound
        return value > self.bound if self.side == "above" else value >= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    ours: float | None
    unit: str = ""
    thin: float | None = None
    goal: Goal | None = None
    note: str = ""
    """How it was measured, or what it rests on."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """For the JSON file only."""

    @property
    def is_met(self) -> bool | None:
        """Return whether the goal is met; None where there is none or nothing was measured."""
        return None if self.goal is None or self.ours is None else self.goal.is_met(self.ours)

    def members(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {**asdict(self), "is_met": self.is_met}


def shown(value: float | None, unit: str) -> str:
    """Return a value as a person reads it: three or four digits that mean something, and the unit."""
    if value is None:
        return "-"
    if unit == "x":
        return f"{value:.4f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 20 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the 50th percentile, an observed value."""
    return percentile(values, 50)
