"""`python -m chaos`: the long form; prints the figures, keeps the recording of a run that failed."""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from chaos.checker import judge
from chaos.driver import Plan, Result, Run
from chaos.recording import Recording


def main() -> int:
    """Run what the command line asks for; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument(
        "--faults",
        type=int,
        default=300,
        help="faults at least, those of the library not counted while there is time",
    )
    parser.add_argument("--prompts", type=int, default=3000, help="prompts at least")
    parser.add_argument("--seconds", type=float, default=840, help="no fault begins later")
    parser.add_argument("--json", type=Path, help="where the figures go as JSON")
    parser.add_argument("--keep", type=Path, help="an empty folder for everything; kept, also of a good run")
    parser.add_argument("--judge", type=Path, help="run nothing, judge a kept recording")
    args = parser.parse_args()
    if args.judge:
        found = judge(Recording.read(args.judge))
        print("\n".join(found.violations) or f"nothing is broken; checked: {dict(found.checked)}")
        return 1 if found.violations else 0
    plan = Plan(args.seed, args.faults, args.prompts, args.seconds)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="rkllm-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {args.seed}, in {folder}", flush=True)
    result = asyncio.run(Run(plan, folder).run())
    if args.keep or result.violations:
        result.world.recording.keep(folder / "recording.json")
        print(f"kept: {folder}/recording.json and daemon.log")
    else:
        shutil.rmtree(folder)
    figures = figures_of(result)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)
    return 1 if result.violations or not figures["enough"] else 0


def figures_of(result: Result) -> dict[str, Any]:
    """Return the figures of a run."""
    recording, judgement, plan = result.world.recording, result.judgement, result.plan
    return {
        "seed": plan.seed,
        "seconds": round(result.took_s),
        "prompts": len(recording.asked),
        "faults": result.faults.total(),
        "by_kind": dict(sorted(result.faults.items())),
        "resent": result.resent,
        "runs": len(recording.ran),
        "outcomes": dict(judgement.outcomes.most_common()),
        "checked": dict(judgement.checked),
        "lag_ms": round(recording.lag_s * 1000),
        "slow_s": round(sum(fault.end - fault.begin for fault in recording.faults if fault.kind == "slow")),
        "violations": result.violations,
        "enough": result.faults.total() >= plan.faults and len(recording.asked) >= plan.prompts,
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    for name, value in figures.items():
        if name == "violations":
            continue
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name:>10}: {shown}")
    for violation in figures["violations"]:
        print(f"VIOLATION {violation}")
    print(f"{len(figures['violations'])} violations")


if __name__ == "__main__":
    sys.exit(main())
