"""`python -m soak`: an hour of prompts at an RK3588's pace, with worker and broker restarts all along.

Prints memory, descriptors, threads, tasks and the journal's size by quarters. Ends with 1 when something has
grown, or an answer was lost, wrong or told twice in two ways.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from rkllmrt import simulator
from soak.readings import RSS_TOLERANCE, Quarter, Reading, growth, quarters
from soak.stage import Soak


def main() -> int:
    """Soak as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long, in the simulated board's time")
    parser.add_argument("--speed", type=float, default=1, help="how many times faster everything happens")
    parser.add_argument("--senders", type=int, default=20, help="clients that ask all the time")
    parser.add_argument("--rss-tolerance", type=float, default=RSS_TOLERANCE, help="part of the memory")
    parser.add_argument("--dir", type=Path, help="where the journal is; default: the temporary files")
    args = parser.parse_args()
    library = simulator.build()
    with tempfile.TemporaryDirectory(prefix="rkllm-soak-", dir=args.dir) as folder:
        soak = Soak(Path(folder), library, args.minutes * 60 / args.speed, args.speed, args.senders)
        try:
            asyncio.run(soak.run())
        except (OSError, ConnectionError) as exc:
            print(f"BROKEN: {exc}")
            return 1
    over_time = quarters(soak.readings)
    show(over_time, soak.before, soak.after)
    tally = soak.tally
    print(
        f"{tally.answered} prompts answered, {tally.resent} resent, {soak.worker_kills} workers killed, "
        f"{soak.worker_restarts} replaced, {soak.broker_restarts} broker restarts"
    )
    wrong = tally.broken + growth(
        soak.before,
        over_time,
        soak.after,
        rss_tolerance=args.rss_tolerance,
        shows_retention=soak.shows_retention,
    )
    for line in wrong[:20]:
        print(f"BROKEN: {line}")
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    return 1 if wrong else 0


def show(over_time: list[Quarter], before: Reading, after: Reading) -> None:
    """Print the table."""
    print(f"{'':12}{'RSS MB':>8}{'descr.':>8}{'threads':>9}{'tasks':>7}{'journal MB':>12}")
    quarters = [(f"quarter {number}", quarter) for number, quarter in enumerate(over_time, 1)]
    rows: list[tuple[str, Reading | Quarter]] = [("idle before", before), *quarters, ("idle after", after)]
    for name, one in rows:
        tasks = "-" if one.tasks is None else one.tasks
        print(
            f"{name:12}{one.rss_mb:8.2f}{one.descriptors:8}{one.threads:9}{tasks:>7}{one.journal_mb:12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
