"""`rkllm-mqtt ask`: ask the model something and stream its answer into the terminal."""

import math
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from typing import Any

from rkllm_mqtt.commands import client_address
from rkllm_mqtt.commands.ask_screen import AskScreen
from rkllm_mqtt.commands.client import Asking, encode, new_id, open_node, outcome_of, own_name
from rkllm_mqtt.commands.client_connection import Connection
from rkllm_mqtt.commands.client_exchange import Finished, Piece, Voided
from rkllm_mqtt.commands.failure import (
    EXIT_FAILED,
    EXIT_USAGE,
    BrokerUnreachable,
    CommandFailed,
    DaemonUnavailable,
)
from rkllm_mqtt.commands.interruption import Interruption
from rkllm_mqtt.commands.terminal import Terminal
from rkllm_mqtt.core.topics import Mailbox, is_client

CANCEL_GRACE_S = 3.0
"""Longest wait for the confirmation after Ctrl-C."""
RECEIPT_TIMEOUT_S = 20.0
"""Longest wait for `accepted`: a daemon that restarts is back long before."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `ask`."""
    parser.add_argument("prompt", nargs="*", metavar="WORDS", help="the question; `-` reads standard input")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--model", metavar="ID", help="one of the configured models")
    parser.add_argument("--preset", metavar="NAME", help="a configured set of sampling parameters")
    parser.add_argument("--max-tokens", type=_count, metavar="N", help="longest answer, tokens")
    parser.add_argument("--temperature", type=_amount, metavar="X", help="0 takes the likeliest token")
    parser.add_argument(
        "--priority",
        choices=("interactive", "normal", "background"),
        default="interactive",
        help="class of service (default: interactive)",
    )
    parser.add_argument("--thinking", action="store_true", help="ask a thinking model to think")
    parser.add_argument("--ttl", type=_amount, metavar="S", help="give up after so many seconds")
    parser.add_argument(
        "--client", metavar="NAME", help="client name (default: the broker user, or cli-USER)"
    )
    parser.add_argument("--json", action="store_true", help="print the final answer as JSON and nothing else")
    parser.add_argument("--no-stream", action="store_true", help="print the answer when it is complete")
    client_address.add_arguments(parser)


def run(args: Namespace) -> int:
    """Ask, show the answer and return the exit status.

    Raises:
        CommandFailed: No broker, no daemon, no prompt.
        ConfigError: The configuration file cannot be used.
    """
    body = encode(request_of(args, prompt_of(args)))
    address = client_address.address_from(args)
    connection, node = open_node(address)
    with connection, Interruption() as interruption:
        mailbox = Mailbox(address.base, node, args.client or own_name(address))
        asking = Asking(mailbox, new_id(), body)
        return _Session(args, asking, connection, interruption).run()


def prompt_of(args: Namespace) -> str:
    """Return the question, from the words or from standard input.

    Raises:
        CommandFailed: There is none, or it is not text.
    """
    if args.client is not None and not is_client(args.client):
        raise CommandFailed(
            f"{args.client!r} cannot be a client name.",
            "Use letters, digits, . _ and -, at most 64.",
            EXIT_USAGE,
        )
    words = " ".join(args.prompt)
    if words == "-" or (not words and not sys.stdin.isatty()):
        try:
            words = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as exc:
            raise CommandFailed("Standard input is not UTF-8 text.", status=EXIT_USAGE) from exc
    if not words.strip():
        raise CommandFailed(
            "There is no question.", 'Type it: rkllm-mqtt ask "Tell me a story of 60 words"', EXIT_USAGE
        )
    return words


def request_of(args: Namespace, prompt: str) -> dict[str, Any]:
    """Return the request's members; what was not given is left to the daemon."""
    request: dict[str, Any] = {}
    if args.system is not None:
        request["messages"] = [
            {"role": "system", "content": args.system},
            {"role": "user", "content": prompt},
        ]
    else:
        request["prompt"] = prompt
    # What turns out to be void cannot be taken back from a pipe: there the text is written at its end.
    request["stream"] = Terminal(sys.stdout).is_terminal and not (args.no_stream or args.json)
    request["priority"] = args.priority
    optional = {
        "model": args.model,
        "preset": args.preset,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "thinking": True if args.thinking else None,
        "ttl_s": args.ttl,
    }
    return request | {key: value for key, value in optional.items() if value is not None}


class _Session:
    """One question from the first byte to the exit status."""

    def __init__(
        self, args: Namespace, asking: Asking, connection: Connection, interruption: Interruption
    ) -> None:
        self._args = args
        self._asking = asking
        self._connection = connection
        self._interruption = interruption
        self._terminal = Terminal(sys.stdout)
        self._stream = self._terminal.is_terminal and not args.no_stream
        self._screen = AskScreen(self._terminal, stream=self._stream)
        self._began = time.monotonic()
        self._give_up: float | None = None

    def run(self) -> int:
        try:
            self._asking.begin(self._connection)
            final = self._follow()
        except BrokenPipeError:
            self._cancel()
            raise
        finally:
            self._terminal.clear_live()
        if self._interruption.count:
            return self._interrupted(final)
        if final is None:
            raise self._no_answer()
        return 0 if final.get("status") == "ok" else EXIT_FAILED

    def _follow(self) -> Mapping[str, Any] | None:
        """Show what comes until the final, and return it; None when we gave up before."""
        for step in self._asking.steps(self._connection, self._interruption):
            if self._interruption.count and self._give_up is None:
                self._interruption.clear()
                self._give_up = time.monotonic() + CANCEL_GRACE_S
                self._screen.end_line()
                self._terminal.live("cancelling …")
                self._cancel()
            final = outcome_of(step)
            if isinstance(step, Finished):
                self._end(step)
                return final
            if self._give_up is None:
                self._show(step)
            if self._too_late():
                return None
        return None

    def _show(self, step: Any) -> None:
        if self._args.json:
            self._terminal.clear_live()
        elif self._stream or not isinstance(step, Piece | Voided):
            self._screen.show(self._asking, step)

    def _end(self, step: Finished) -> None:
        if self._args.json:
            self._terminal.write(step.payload.decode("utf-8", "replace").rstrip("\n") + "\n")
            return
        text = step.final.get("text")
        if not self._stream and isinstance(text, str) and text:
            self._screen.show(self._asking, Piece("text", text))
        self._screen.close(step.final)
        if step.final.get("status") != "ok" and not self._interruption.count:
            _complain(step.final)

    def _too_late(self) -> bool:
        now = time.monotonic()
        if self._give_up is not None:
            return now >= self._give_up or self._interruption.count > 1
        if self._asking.exchange.accepted:
            return False
        return now - self._began >= RECEIPT_TIMEOUT_S

    def _cancel(self) -> None:
        try:
            self._asking.cancel(self._connection)
        except BrokerUnreachable:
            return  # nothing more can be done; the request's deadline ends it

    def _interrupted(self, final: Mapping[str, Any] | None) -> int:
        errors = Terminal(sys.stderr)
        if final is None:
            errors.write("no confirmation of the cancellation came\n", "yellow")
        elif final.get("status") != "ok":
            errors.write("cancelled\n", "dim")
        return self._interruption.exit_status

    def _no_answer(self) -> CommandFailed:
        self._cancel()  # or a daemon that comes back tomorrow would answer nobody
        node = self._asking.mailbox.target
        if self._asking.broker_lost:
            return BrokerUnreachable("The connection to the broker was lost and did not come back.")
        if self._asking.daemon_online is False:
            return DaemonUnavailable(
                f"The daemon {node!r} is offline.", "Start it, or name another with --node."
            )
        return DaemonUnavailable(
            f"{node!r} did not accept the question within {RECEIPT_TIMEOUT_S:.0f} s.",
            "Is that its name, and may this user write on its topics? `rkllm-mqtt top` shows what it does.",
        )


def _complain(final: Mapping[str, Any]) -> None:
    errors = Terminal(sys.stderr)
    error = final.get("error")
    error = error if isinstance(error, Mapping) else {}
    errors.write(f"{error.get('code', 'error')}: {error.get('message', 'the request failed')}\n", "red")
    if error.get("hint"):
        errors.write(f"{error['hint']}\n", "red")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ArgumentTypeError(f"{text!r} is no number from 0")
    return number
