"""Show the figures to a person, and keep them as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figure import Figure, shown

_MET = {True: "yes", False: "NO", None: ""}


def show(figures: Sequence[Figure], console: Console) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    for heading, side in (
        ("figure", "left"),
        ("ours", "right"),
        ("thin", "right"),
        ("goal", "right"),
        ("met", "left"),
    ):
        table.add_column(heading, justify="right" if side == "right" else "left")
    table.add_column("note", overflow="fold", style="dim")
    for one in figures:
        style = "bold red" if one.is_met is False else None
        ours, thin = shown(one.ours, one.unit), shown(one.thin, one.unit)
        table.add_row(one.name, ours, thin, _goal(one), _MET[one.is_met], one.note, style=style)
    console.print(table)


def keep(
    path: Path, figures: Sequence[Figure], machine: Mapping[str, Any], failed: Mapping[str, str]
) -> None:
    """Write everything that was measured."""
    members = {
        "machine": machine,
        "figures": [one.members() for one in figures],
        "failed": failed,
    }
    path.write_text(json.dumps(members, indent=1) + "\n")


def _goal(figure: Figure) -> str:
    goal = figure.goal
    if goal is None:
        return ""
    sign = {"at most": "<=", "at least": ">=", "above": ">"}[goal.side]
    return goal.text or f"{sign} {goal.bound:g} {'' if figure.unit == 'x' else figure.unit}".rstrip()
