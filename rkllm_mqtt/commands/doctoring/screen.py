"""Show findings: grouped and coloured on a terminal, plain lines in a pipe, JSON for a script."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from rkllm_mqtt.commands.doctoring.finding import Finding, Level
from rkllm_mqtt.commands.terminal import Terminal, harmless

SYMBOLS = {Level.OK: "✓", Level.WARN: "!", Level.FAIL: "✗", Level.SKIPPED: "·"}
COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.SKIPPED: "dim"}
CHECK_WIDTH = 14
WIDEST = 110


class Screen:
    """Shows one group after the other, as soon as it is known."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = Terminal(stream)

    def heading(self, what: str) -> None:
        """Show what is examined."""
        self._terminal.write(f"\n  {what}\n" if self._terminal.is_terminal else f"{what}\n", "dim")

    def waiting(self, what: str) -> None:
        """Show what takes a moment; it vanishes with the next group."""
        self._terminal.live(f"  {what}")

    def group(self, findings: Sequence[Finding]) -> None:
        """Show the findings of one group."""
        self._terminal.clear_live()
        if not findings:
            return
        if self._terminal.is_terminal:
            self._rich(findings)
        else:
            self._plain(findings)

    def summary(self, findings: Sequence[Finding]) -> None:
        """Show how many of each there are, and end."""
        counts = {level: sum(finding.level is level for finding in findings) for level in Level}
        parts = [
            _counted(counts[Level.FAIL], "failure", "failures"),
            _counted(counts[Level.WARN], "warning", "warnings"),
            f"{counts[Level.OK]} ok",
            f"{counts[Level.SKIPPED]} skipped" if counts[Level.SKIPPED] else "",
        ]
        verdict = ", ".join(part for part in parts if part)
        style = "red" if counts[Level.FAIL] else "yellow" if counts[Level.WARN] else "green"
        indent = "  " if self._terminal.is_terminal else ""
        self._terminal.write(f"\n{indent}{verdict}\n" + ("\n" if indent else ""), style)

    def _rich(self, findings: Sequence[Finding]) -> None:
        from rich.console import Console
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        width = min(shutil.get_terminal_size().columns, WIDEST)
        console = Console(file=self._stream, width=width, highlight=False)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), expand=False)
        table.add_column(width=1)
        table.add_column(min_width=CHECK_WIDTH)
        table.add_column(overflow="fold")
        for finding in findings:
            dim = finding.level is Level.SKIPPED
            text = Text(harmless(finding.sentence), style="dim" if dim else "")
            if finding.advice:
                style = "dim" if dim else "cyan"
                text.append(f"\n→ {harmless(finding.advice)}", style=style)
            symbol = Text(SYMBOLS[finding.level], style=COLOURS[finding.level])
            table.add_row(symbol, Text(harmless(finding.check), style="dim" if dim else "bold"), text)
        console.print(Padding(Text(findings[0].group, style="bold underline"), (1, 0, 0, 2)))
        console.print(Padding(table, (0, 0, 0, 2)))

    def _plain(self, findings: Sequence[Finding]) -> None:
        print(f"\n{findings[0].group}", file=self._stream)
        for finding in findings:
            line = f"  {finding.level:<7} {finding.check:<{CHECK_WIDTH}} {finding.sentence}"
            print(line, file=self._stream)
            if finding.advice:
                print(textwrap.indent(f"→ {finding.advice}", " " * (CHECK_WIDTH + 11)), file=self._stream)
        self._stream.flush()


def print_json(findings: Iterable[Finding], stream: TextIO = sys.stdout) -> None:
    """Print a list of objects with group, check, level, sentence and advice."""
    json.dump([finding.members() for finding in findings], stream, ensure_ascii=False, indent=2)
    stream.write("\n")


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""
