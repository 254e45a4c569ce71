"""`rkllm-mqtt top`: a live screen of one daemon, drawn from its retained messages."""

import json
import os
import shutil
import sys
import termios
import time
import tty
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from rkllm_mqtt.commands import client_address
from rkllm_mqtt.commands.client import RECONNECT_FIRST_S, RECONNECT_MAX_S, BackOff, open_node, wait_for
from rkllm_mqtt.commands.client_connection import Connection, ConnectionLost, Waitable
from rkllm_mqtt.commands.failure import BrokerUnreachable
from rkllm_mqtt.commands.interruption import Interruption
from rkllm_mqtt.commands.top_state import TopState

FRAME_S = 0.5
"""Longest time between two frames: clocks and the moving bar go on without messages."""
SHORTEST_FRAME_S = 0.1
SMALLEST_PIPE = (80, 24)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of `top`."""
    parser.add_argument("--once", action="store_true", help="print one frame and exit")
    parser.add_argument("--json", action="store_true", help="print the retained state as JSON and exit")
    client_address.add_arguments(parser)


def run(args: Namespace) -> int:
    """Show the screen until `q` or Ctrl-C; return the exit status.

    Raises:
        CommandFailed: No broker or no daemon.
        ConfigError: The configuration file cannot be used.
    """
    address = client_address.address_from(args)
    connection, node = open_node(address)
    state = TopState(address.base, node, str(address), connection.protocol)
    with connection:
        connection.subscribe(state.topics)
        connection.barrier()
        for message in connection.pump(0.0):
            state.take(message, time.monotonic())
        if args.json:
            print(json.dumps(state.document(time.monotonic()), ensure_ascii=False, indent=2))
        elif args.once or not sys.stdout.isatty():
            _print_frame(state)
        else:
            with Interruption() as interruption:
                _Watch(state, connection, interruption).run()
    return 0


def _print_frame(state: TopState) -> None:
    from rich.console import Console

    from rkllm_mqtt.commands.top_screen import screen

    size = shutil.get_terminal_size(SMALLEST_PIPE)
    height = size.lines - 1 if sys.stdout.isatty() else size.lines
    console = Console(width=size.columns, height=height)
    console.print(screen(state, time.monotonic(), size.columns, height), end="")


class _Watch:
    """The loop of the live screen: messages and keys in, frames out."""

    def __init__(self, state: TopState, connection: Connection, interruption: Interruption) -> None:
        self._state = state
        self._connection = connection
        self._interruption = interruption
        self._reopen = BackOff(RECONNECT_FIRST_S, RECONNECT_MAX_S)
        self._sampled = time.monotonic()

    def run(self) -> None:
        from rich.console import Console
        from rich.live import Live

        from rkllm_mqtt.commands.top_screen import screen

        console = Console()
        with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
            drawn = 0.0
            while not self._interruption.count:
                now = time.monotonic()
                if now - drawn >= SHORTEST_FRAME_S:
                    live.update(screen(self._state, now, *console.size), refresh=True)
                    drawn = now
                if self._wants_to_quit(keys):
                    return
                self._advance(keys, FRAME_S if now == drawn else SHORTEST_FRAME_S)

    def _advance(self, keys: list[Waitable], timeout_s: float) -> None:
        if not self._connection.is_open and not self._reconnect():
            wait_for(self._interruption, timeout_s)
        else:
            try:
                for message in self._connection.pump(timeout_s, self._interruption, *keys):
                    self._state.take(message, time.monotonic())
            except ConnectionLost as exc:
                self._state.broker_lost = str(exc).rpartition(": ")[2].rstrip(".")
        while time.monotonic() - self._sampled >= 1.0:
            self._sampled += 1.0
            self._state.sample()

    def _reconnect(self) -> bool:
        if time.monotonic() < self._reopen.due:
            return False
        try:
            self._connection.open()
            self._connection.subscribe(self._state.topics)
        except BrokerUnreachable as exc:
            self._reopen.used(time.monotonic())
            self._state.broker_lost = str(exc).rpartition(": ")[2].rstrip(".")
            return False
        self._reopen.pause_s = 0.0
        self._state.broker_lost = None
        return True

    def _wants_to_quit(self, keys: list[Waitable]) -> bool:
        import select

        while keys and select.select(keys, [], [], 0)[0]:
            typed = os.read(keys[0].fileno(), 64)
            if not typed:  # the terminal is gone
                keys.clear()
                return True
            if any(key in b"qQ\x03\x04" for key in typed):
                return True
        return False


@contextmanager
def _keys() -> Iterator[list[Waitable]]:
    """Deliver single keys from standard input while entered; an empty list where it is no terminal."""
    if not sys.stdin.isatty():
        yield []
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield [sys.stdin]
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
