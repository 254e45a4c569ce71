"""`rkllm-mqtt caches`: list the saved beginnings of prompts, create one by name, delete one."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rkllm_mqtt.commands import client_address
from rkllm_mqtt.commands.client import open_node, require_online
from rkllm_mqtt.commands.client_admin import ask_admin
from rkllm_mqtt.commands.failure import EXIT_USAGE, CommandFailed
from rkllm_mqtt.commands.terminal import harmless, word

_HINT = "It looks like: rkllm-mqtt caches create voice --system prompt.txt"
_DONE = {
    "create": "{name}: {state}; it is computed and saved when the slot is idle",
    "delete": "{name}: deleted",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `caches`."""
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=("list", "create", "delete"),
        help="what to do (default: list); needs admin.enabled in the daemon",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of the cache; with delete also a file's hash"
    )
    parser.add_argument(
        "--system", type=Path, metavar="FILE", help="with create: text of the system prompt; - reads stdin"
    )
    parser.add_argument("--tools", type=Path, metavar="FILE", help="with create: JSON array of tools")
    parser.add_argument("--model", metavar="ID", help="with create: for this model")
    parser.add_argument("--json", action="store_true", help="print JSON")
    client_address.add_arguments(parser)


def run(args: Namespace) -> int:
    """Do one thing with the caches and return the exit status.

    Raises:
        CommandFailed: No broker, no daemon, admin is off, or the words make no sense.
        ConfigError: The configuration file cannot be used.
    """
    members = _members(args)
    address = client_address.address_from(args)
    connection, node = open_node(address)
    with connection:
        require_online(connection, address, node)
        command = "caches" if args.action == "list" else f"cache_{args.action}"
        response = ask_admin(address, connection, node, command, members)
    told = _dict(response.get("data"))
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    elif args.action == "list":
        print("\n".join(listing(told)))
    else:
        print(_DONE[args.action].format(name=args.name, state=harmless(str(told.get("state", "")))))
    return 0


def listing(told: Mapping[str, Any]) -> list[str]:
    """Return the lines that a person reads."""
    lines = [
        f"{word(name)}: {_number(tier, 'mb'):,.1f} of {_number(tier, 'budget_mb'):,.0f} MB"
        for name, tier in _dict(told.get("tiers")).items()
    ] or ["no folder for prompt-cache files"]
    lines.append(f"written on the disk today: {_number(told, 'disk_written_today_mb'):,.1f} MB")
    lines += [
        f"  {word(prefix.get('name'))}  of {word(prefix.get('client'))}, {word(prefix.get('model'))}"
        for prefix in _list(told.get("prefixes"))
    ]
    rows: list[Sequence[str]] = [("FILE", "TIER", "CLIENT", "TOKENS", "MB", "LOADS")]
    rows += [
        (
            word(file.get("file")),
            word(file.get("tier")),
            word(file.get("client")),
            f"{_number(file, 'tokens'):,.0f}",
            f"{_number(file, 'bytes') / 1e6:,.1f}",
            f"{_number(file, 'loads'):,.0f}",
        )
        for file in _list(told.get("files"))
    ]
    if len(rows) == 1:
        return [*lines, "  no files"]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True))
        right = "  ".join(cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True))
        lines.append(f"  {left}  {right}")
    return lines


def _members(args: Namespace) -> dict[str, Any]:
    """Return the members of the admin command.

    Raises:
        CommandFailed: What is given does not fit together, or a file cannot be read.
    """
    given = [name for name in ("system", "tools", "model") if getattr(args, name) is not None]
    if (args.action == "list") == (args.name is not None) or (given and args.action != "create"):
        raise CommandFailed(f"`caches {args.action}` does not fit what is given.", _HINT, EXIT_USAGE)
    if args.action == "list":
        return {}
    if args.action == "delete":
        return {"file": args.name} if len(args.name) == 33 and args.name[16] == "-" else {"name": args.name}
    if args.system is None:
        raise CommandFailed("`caches create` needs --system.", _HINT, EXIT_USAGE)
    members: dict[str, Any] = {
        "name": args.name,
        "messages": [{"role": "system", "content": _read(args.system)}],
    }
    if args.tools is not None:
        try:
            members["tools"] = json.loads(_read(args.tools))
        except ValueError as exc:
            raise CommandFailed(f"{args.tools} is not JSON: {exc}", _HINT) from exc
    return members if args.model is None else {**members, "model": args.model}


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as exc:
        raise CommandFailed(f"{path} cannot be read: {exc}", _HINT) from exc


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _number(members: object, key: str) -> float:
    value = _dict(members).get(key)
    return value if isinstance(value, int | float) else 0.0
