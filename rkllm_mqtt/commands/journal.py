"""`rkllm-mqtt journal`: check, back up and export the journal, also while the daemon runs."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from rkllm_mqtt.commands.failure import EXIT_JOURNAL, EXIT_USAGE, CommandFailed
from rkllm_mqtt.commands.terminal import Terminal
from rkllm_mqtt.host.modelfile import size_for_people
from rkllm_mqtt.store.backup import back_up
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.export import export_jobs
from rkllm_mqtt.store.inspection import Inspection, inspect
from rkllm_mqtt.store.reading import reader
from rkllm_mqtt.store.schema import SCHEMA_VERSION

_FINISHED = ("succeeded", "failed", "cancelled", "expired")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("action", choices=("check", "backup", "export"), help="what to do")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="with backup: where to")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration of the daemon")
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="this journal, for instance a backup; else the daemon's"
    )
    parser.add_argument("--finished", action="store_true", help="with export: only what has its outcome")
    parser.add_argument(
        "--contents", action="store_true", help="with export: prompts, answers and addresses too (private)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; export always does, one job a line")


def run(args: Namespace) -> int:
    """Do one thing with the journal; return 1 when `check` found a problem.

    Raises:
        CommandFailed: The journal cannot be used, or the words make no sense.
        ConfigError: The configuration cannot be used.
    """
    _check_words(args)
    path: Path = args.journal or _configured(args.config)
    try:
        if args.action == "backup":
            return _backup(path, args.file, as_json=args.json)
        if args.action == "export":
            return _export(path, finished=args.finished, contents=args.contents)
        return _check(path, as_json=args.json)
    except StoreError as exc:
        raise CommandFailed(str(exc), exc.hint, EXIT_JOURNAL) from exc


def _configured(config: Path | None) -> Path:
    # Half of the start of this command, and needless beside --journal.
    from rkllm_mqtt.config import load_config

    return load_config(config).journal.path


def _check_words(args: Namespace) -> None:
    hint = "`rkllm-mqtt journal --help` shows what there is."
    if args.action == "backup" and args.file is None:
        raise CommandFailed("`journal backup` needs the FILE to write.", hint, EXIT_USAGE)
    if args.action != "backup" and args.file is not None:
        raise CommandFailed(
            f"`journal {args.action}` takes no FILE.", "Name another journal with --journal.", EXIT_USAGE
        )
    if args.action != "export" and (args.finished or args.contents):
        raise CommandFailed("--finished and --contents go with `journal export`.", hint, EXIT_USAGE)


def _check(path: Path, *, as_json: bool) -> int:
    with reader(path) as connection:
        found = inspect(connection, path)
    if as_json:
        members = {"journal": str(path), "ok": not found.problems, "schema_known": SCHEMA_VERSION}
        print(json.dumps(members | to_builtins(found), ensure_ascii=False))
    else:
        _show(path, found, Terminal(sys.stdout))
    return 1 if found.problems else 0


def _show(path: Path, found: Inspection, terminal: Terminal) -> None:
    terminal.write("✗ " if found.problems else "✓ ", "red" if found.problems else "green")
    terminal.write(f"{path}: {'has problems' if found.problems else 'sound'}\n", "bold")
    for line in figures(found):
        terminal.write(f"  {line}\n")
    for problem in found.problems:
        terminal.write(f"  {problem.count} {problem.sentence}: {', '.join(problem.examples)}\n", "red")
    if found.problems:
        terminal.write("  → `rkllm-mqtt journal export` saves what can be read; restore a backup.\n")


def figures(found: Inspection) -> list[str]:
    """Return the lines that a person reads about a journal."""
    jobs = found.jobs
    age_h = None if found.oldest_finished_s is None else found.oldest_finished_s / 3600
    newer = "" if found.schema == SCHEMA_VERSION else f", becomes {SCHEMA_VERSION} when the daemon starts"
    ends = ", ".join(f"{jobs[state]} {state}" for state in _FINISHED if jobs[state])
    return [
        f"schema {found.schema}{newer}",
        f"{_size(found.file_bytes)}, of which {_size(found.free_bytes)} free;"
        f" write-ahead log {_size(found.wal_bytes)}, ballast {_size(found.ballast_bytes)}",
        f"prompts {_size(found.request_bytes)}, answers {_size(found.outcome_bytes)}"
        + ("" if age_h is None else f", the oldest finished {age_h:.1f} h ago"),
        f"{jobs['running']} running, {jobs['waiting']} waiting,"
        f" {sum(jobs[state] for state in _FINISHED)} finished" + (f" ({ends})" if ends else ""),
        f"{jobs['undelivered']} answers not yet with the broker",
    ]


def _size(size_bytes: int) -> str:
    return size_for_people(size_bytes) if size_bytes else "0"


def _backup(path: Path, target: Path, *, as_json: bool) -> int:
    with reader(path) as connection:
        size = back_up(connection, target)
    members: dict[str, Any] = {"journal": str(path), "backup": str(target), "bytes": size}
    print(json.dumps(members, ensure_ascii=False) if as_json else f"{target}: {_size(size)}, checked")
    return 0


def _export(path: Path, *, finished: bool, contents: bool) -> int:
    with reader(path) as connection:
        for members in export_jobs(connection, finished=finished, contents=contents):
            print(json.dumps(members, ensure_ascii=False, separators=(",", ":")))
    return 0
