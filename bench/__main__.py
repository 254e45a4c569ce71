"""`python -m bench`: measure, print a table, write bench/results.json.

Ends with 0 whatever the times are, and with 1 when an answer was lost or wrong or something did not start:
times depend on the machine, the promises do not.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from rich.console import Console

from bench import machine, table
from bench.asking import Broken
from bench.context import Context
from bench.figure import Figure
from bench.rows import (
    batching,
    cancelling,
    classes,
    clients,
    crashing,
    crowd,
    daily,
    deciding,
    flooding,
    footprint,
    foretelling,
    idling,
    latency,
    preempting,
    relaying,
    reusing,
    sharing,
    starting,
    state,
    tools,
    waiting,
    warming,
)
from rkllmrt import simulator

Row = Callable[[Context], Awaitable[list[Figure]]]
ROWS: Mapping[str, Row] = {
    "latency": latency.measure,
    "relaying": relaying.measure,
    "crowd": crowd.measure,
    "state": state.measure,
    "cancelling": cancelling.measure,
    "batching": batching.measure,
    "crashing": crashing.measure,
    "daily": daily.measure,
    "footprint": footprint.measure,
    "waiting": waiting.measure,
    "burst": waiting.measure_burst,
    "tools": tools.measure,
    "warming": warming.measure,
    "flooding": flooding.measure,
    "clients": clients.measure,
    "deciding": deciding.measure,
    "preempting": preempting.measure,
    "reusing": reusing.measure,
    "sharing": sharing.measure,
    "classes": classes.measure,
    "foretelling": foretelling.measure,
    "idling": idling.measure,
    "starting": starting.measure,
}
_MEMORY = Path("/dev/shm")
RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=ROWS, metavar="ROW", help=f"one of: {', '.join(ROWS)}"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it works, no more")
    parser.add_argument("--dir", type=Path, help="where the journals are; a folder on the disk to measure")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    args = parser.parse_args()
    if args.dir is None and machine.file_system(Path(tempfile.gettempdir())) == "tmpfs":
        # A sync on tmpfs costs nothing and would flatter.
        args.dir = Path("/var/tmp")
    memory = _MEMORY if _MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="rkllm-bench-", dir=args.dir) as folder,
        tempfile.TemporaryDirectory(prefix="rkllm-bench-", dir=memory) as notes,
    ):
        context = Context(Path(folder), Path(notes), simulator.build(), args.quick)
        facts = machine.describe(context.folder, context.library)
        figures, failed = asyncio.run(measure(context, {name: ROWS[name] for name in args.only or ROWS}))
    table.keep(args.results, figures, facts, failed)
    table.show(figures, Console(width=None if sys.stdout.isatty() else 170))
    for name, reason in failed.items():
        print(f"BROKEN: {name}: {reason}")
    missed = sum(figure.is_met is False for figure in figures)
    print(f"{len(figures)} figures, {missed} goals missed, {len(failed)} rows broken")
    return 1 if failed else 0


async def measure(context: Context, rows: Mapping[str, Row]) -> tuple[list[Figure], dict[str, str]]:
    """Measure row after row; return the figures, and why a row has none."""
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    for name, row in rows.items():
        began = time.monotonic()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            figures += await row(context)
        except (Broken, OSError) as exc:
            failed[name] = "\n".join([str(exc) or type(exc).__name__, *getattr(exc, "__notes__", ())])
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return figures, failed


if __name__ == "__main__":
    sys.exit(main())
