"""The command line: which command was typed, and what becomes of its errors.

Each command is a module with `add_arguments(parser)` and `run(args) -> int`; only the one that was typed
is imported, so that `ask` does not wait for what the daemon needs.
"""

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from msgspec import Struct

from rkllm_mqtt import __version__
from rkllm_mqtt.commands.failure import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_USAGE, CommandFailed
from rkllm_mqtt.commands.terminal import Terminal
from rkllm_mqtt.core.errors import ConfigError, RkllmMqttError

EXIT_BROKEN_PIPE = 141
"""As shells report a process ended by SIGPIPE."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Command(Struct, frozen=True):
    """One word after `rkllm-mqtt`."""

    name: str
    summary: str
    example: str

    @property
    def module(self) -> str:
        """Return the module that does it."""
        return f"rkllm_mqtt.commands.{self.name}"


COMMANDS = (
    Command("run", "run the daemon", "rkllm-mqtt run --config /etc/rkllm-mqtt/rkllm-mqtt.yaml"),
    Command("demo", "try everything: a broker, the daemon, and what to type next", "rkllm-mqtt demo"),
    Command(
        "ask", "ask the model; the answer streams into the terminal", 'rkllm-mqtt ask "Why is the sky blue?"'
    ),
    Command("top", "watch queue, slot, tokens/s and NPU live", "rkllm-mqtt top"),
    Command("caches", "list saved beginnings of prompts, create one, delete one", "rkllm-mqtt caches"),
    Command("queue", "list the queue, cancel a prompt, pause, resume, drain", "rkllm-mqtt queue list"),
    Command(
        "journal",
        "check, back up and export what is kept on disk",
        "rkllm-mqtt journal backup journal-copy.db",
    ),
    Command("doctor", "find what is wrong on this board and say what to do", "rkllm-mqtt doctor"),
    Command(
        "service", "put the daemon under systemd, take it away, say how it is", "rkllm-mqtt service install"
    ),
    Command("config", "check a configuration, print its schema or an example", "rkllm-mqtt config check"),
    Command("models", "list the models and whether their files are good", "rkllm-mqtt models"),
)


class _Parser(argparse.ArgumentParser):
    """Usage errors in two lines: what is wrong, and where to read on."""

    def error(self, message: str) -> NoReturn:
        errors = Terminal(sys.stderr)
        errors.write(f"{self.prog}: {message}\n", "red")
        errors.write(f"`{self.prog} --help` shows what there is.\n")
        self.exit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        argv: The words after the program's name; None takes the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Closed by whoever started us: what is written there is lost, as it was asked for.
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets `?` for what it has not
            stream.reconfigure(errors="replace")
    try:
        args = parse(words)
    except SystemExit as end:  # argparse has said why
        return end.code if isinstance(end.code, int) else 0
    try:
        status: int = importlib.import_module(args.command.module).run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; Python must not complain about it again while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"The output cannot be written: {exc.strerror}.", "", 1)
    except ConfigError as exc:
        return _fail(str(exc), exc.hint, EXIT_CONFIG)
    except CommandFailed as exc:
        return _fail(str(exc), exc.hint, exc.status)
    except RkllmMqttError as exc:
        return _fail(str(exc), getattr(exc, "hint", ""), 1)
    return status


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options; `command` is the Command that was typed.

    Raises:
        SystemExit: Help was asked for (0), or the words make no sense (2).
    """
    typed = next((word for word in words if not word.startswith("-")), None)
    if typed is not None and typed not in {command.name for command in COMMANDS}:
        _parser().error(_unknown("command", typed, [command.name for command in COMMANDS]))
    parser = _parser()
    choices = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen: argparse.ArgumentParser = parser
    for command in COMMANDS:
        sub = choices.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=command)
        if command.name == typed:
            importlib.import_module(command.module).add_arguments(sub)
            chosen = sub
    if not words:
        parser.print_help()
        raise SystemExit(EXIT_USAGE)
    args, left = parser.parse_known_args(words)
    if left:
        options = [option for action in chosen._actions for option in action.option_strings]  # noqa: SLF001
        kind = "option" if left[0].startswith("-") else "word"
        chosen.error(_unknown(kind, left[0].partition("=")[0], options))
    return args


def _parser() -> _Parser:
    parser = _Parser(
        prog="rkllm-mqtt",
        description="Share the one language model slot of a Rockchip NPU over MQTT.",
        epilog='first steps:\n  rkllm-mqtt demo\n  rkllm-mqtt ask "Tell me a story of 60 words"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rkllm-mqtt {__version__}")
    return parser


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def _unknown(kind: str, word: str, known: Sequence[str]) -> str:
    import difflib  # only for who mistypes

    close = difflib.get_close_matches(word, known, n=1)
    return f"there is no {kind} {word!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _fail(message: str, hint: str, status: int) -> int:
    errors = Terminal(sys.stderr)
    errors.write(f"rkllm-mqtt: {message}\n", "red")
    if hint:
        errors.write(f"{hint}\n")
    return status
