"""`rkllm-mqtt queue`: list what runs and waits, cancel a prompt, pause, resume and drain the slot."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from rkllm_mqtt.commands import client_address
from rkllm_mqtt.commands.client import open_node, own_name, read_status, require_online
from rkllm_mqtt.commands.client_address import BrokerAddress
from rkllm_mqtt.commands.client_admin import ask_admin, wait_for
from rkllm_mqtt.commands.client_connection import Connection, Message, members_of
from rkllm_mqtt.commands.failure import EXIT_USAGE, CommandFailed
from rkllm_mqtt.commands.terminal import word
from rkllm_mqtt.core.topics import Mailbox, Topics, is_client, is_id

CANCEL_TIMEOUT_S = 5.0

_DONE = {
    "pause": "paused: nothing new starts; `rkllm-mqtt queue resume` goes on",
    "resume": "resumed",
    "drain": "draining: no new prompts are taken; what waits still runs",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `queue`."""
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=("list", "cancel", "pause", "resume", "drain"),
        help="what to do (default: list); all but list and cancel ID need admin.enabled in the daemon",
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="with cancel: the id of the prompt")
    parser.add_argument(
        "--client", metavar="NAME", help="with cancel: whose prompt; default: look it up, else ours"
    )
    parser.add_argument("--all", action="store_true", help="with cancel: every prompt (needs admin)")
    parser.add_argument("--running", action="store_true", help="with cancel: the one that runs (needs admin)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    client_address.add_arguments(parser)


def run(args: Namespace) -> int:
    """Do one thing with the queue and return the exit status.

    Raises:
        CommandFailed: No broker, no daemon, admin is off, or the words make no sense.
        ConfigError: The configuration file cannot be used.
    """
    _check(args)
    address = client_address.address_from(args)
    connection, node = open_node(address)
    with connection:
        if args.action == "list":
            return _list(args, address, connection, node)
        require_online(connection, address, node)
        if args.action == "cancel" and args.id is not None:
            return _cancel(args, address, connection, node)
        if args.action == "cancel":
            answer = ask_admin(
                address, connection, node, "cancel", {"all": True} if args.all else {"running": True}
            )
            print(json.dumps(answer, ensure_ascii=False) if args.json else "cancelled")
            return 0
        answer = ask_admin(address, connection, node, args.action, {})
        print(json.dumps(answer, ensure_ascii=False) if args.json else _DONE[args.action])
        return 0


def _check(args: Namespace) -> None:
    hint = "It looks like: rkllm-mqtt queue cancel 7f3a --client kitchen"
    targets = [args.id is not None, args.all, args.running]
    if args.action == "cancel" and sum(targets) != 1:
        raise CommandFailed("`queue cancel` needs one of ID, --running and --all.", hint, EXIT_USAGE)
    if args.action != "cancel" and (any(targets) or args.client is not None):
        raise CommandFailed(
            f"`queue {args.action}` takes no ID, --client, --running or --all.", hint, EXIT_USAGE
        )
    if args.id is not None and not is_id(args.id):
        raise CommandFailed(f"{args.id!r} cannot be the id of a prompt.", hint, EXIT_USAGE)
    if args.client is not None and not is_client(args.client):
        raise CommandFailed(f"{args.client!r} cannot be a client name.", hint, EXIT_USAGE)


def _list(args: Namespace, address: BrokerAddress, connection: Connection, node: str) -> int:
    status = read_status(connection, address, node)
    queue = _retained_queue(address, connection, node)
    if args.json:
        print(json.dumps({"node": node, "status": status or "unknown", "queue": queue}, ensure_ascii=False))
        return 0
    print("\n".join(listing(node, status, queue)))
    return 0


def listing(node: str, status: str, queue: Mapping[str, Any]) -> list[str]:
    """Return the lines that a person reads, for a retained queue as the daemon published it."""
    if not queue:
        return [f"{node}: {status or 'unknown'}, it has published no queue"]
    waits, limit = _whole(queue.get("length")), _whole(queue.get("limit"))
    head = f"{node}: {status or 'unknown'}, {word(queue.get('state'))}, {waits} waiting of at most {limit}"
    if queue.get("accepting") is False:
        head += ", takes no new prompts"
    lines = [head]
    by_class = queue.get("waiting_by_priority")
    if waits != "0" and isinstance(by_class, dict):
        counts = ", ".join(f"{word(name)} {_whole(count)}" for name, count in by_class.items())
        lines.append(f"  waiting: {counts}")
        oldest, eta = _whole(queue.get("oldest_wait_s")), _whole(queue.get("eta_s"))
        lines.append(f"  oldest waits {oldest} s, all done in about {eta} s")
    jobs = queue.get("running")
    rows: list[Sequence[str]] = [["RUNNING", "CLIENT", "PRIORITY", "ATTEMPT", "TOKENS", "SECONDS"]]
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict):
            numbers = (str(_whole(job.get(key))) for key in ("attempt", "tokens", "elapsed_s"))
            rows.append((word(job.get("id")), word(job.get("client")), word(job.get("priority")), *numbers))
    if len(rows) == 1:
        return [*lines, "  nothing runs"]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True))
        right = "  ".join(cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True))
        lines.append(f"  {left}  {right}")
    return lines


def _cancel(args: Namespace, address: BrokerAddress, connection: Connection, node: str) -> int:
    client = (
        args.client or _client_of(args.id, _retained_queue(address, connection, node)) or own_name(address)
    )
    mailbox = Mailbox(address.base, node, client)
    reply, event = mailbox.topic("reply", args.id), mailbox.topic("event", args.id)
    connection.subscribe([reply, event])
    connection.publish(mailbox.topic("cancel", args.id), args.id.encode())

    def confirmation(message: Message) -> dict[str, Any] | None:
        members = members_of(message.payload)
        wanted = message.topic == reply or (
            message.topic == event and members.get("type") == "cancel_unknown"
        )
        return members if wanted else None

    answer = wait_for(connection, confirmation, CANCEL_TIMEOUT_S)
    if answer is None:
        raise CommandFailed(
            f"No confirmation came within {CANCEL_TIMEOUT_S:.0f} s.",
            "`rkllm-mqtt queue list` shows what runs.",
        )
    if args.json:
        print(json.dumps(answer, ensure_ascii=False))
    if answer.get("type") == "cancel_unknown":
        raise CommandFailed(
            f"{node} knows no prompt {args.id!r} of the client {client!r}.", "Name its client with --client."
        )
    if not args.json:
        cancelled = answer.get("finish_reason") == "cancelled"
        print("cancelled" if cancelled else f"it had ended already ({word(answer.get('finish_reason'))})")
    return 0


def _client_of(request_id: str, queue: Mapping[str, Any]) -> str | None:
    jobs = queue.get("running")
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict) and job.get("id") == request_id and is_client(str(job.get("client"))):
            return str(job["client"])
    return None


def _retained_queue(address: BrokerAddress, connection: Connection, node: str) -> dict[str, Any]:
    topic = Topics(address.base, node).state("queue")
    connection.subscribe([topic])
    connection.barrier()
    found = [members_of(message.payload) for message in connection.pump(0.0) if message.topic == topic]
    return found[-1] if found else {}


def _whole(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else "0"
