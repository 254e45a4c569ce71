"""What the demo tells a person: what runs, what to type next, and what happens."""

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from rkllm_mqtt import __version__
from rkllm_mqtt.commands.client_connection import Message
from rkllm_mqtt.commands.terminal import Terminal, harmless

STORY = "Tell me a story of 60 words"
TRAFFIC = ("request", "cancel", "reply")
"""What is shown of the traffic: the level after the client's name."""
_LOG_LINE = re.compile(r"(?:(\d\d:\d\d:\d\d) )?(debug|info|warning|error|critical) +(\S+) ?(.*)")
_SHOWN_AS_TRAFFIC = frozenset({"job_ended"})
_LEVEL_STYLES = {"warning": ("yellow",), "error": ("red",), "critical": ("red",)}


class Running(Struct, frozen=True):
    """What the demo started."""

    broker: str
    """Name of the broker program."""
    host: str
    port: int
    base: str
    node: str
    folder: Path
    kept: bool
    """The folder stays after the end."""
    noted: bool
    """The commands find the broker by themselves; otherwise they must be told."""
    info: Mapping[str, Any]
    """The daemon's retained `info`."""
    loaded: bool
    """The model is ready."""


def command_word(environ: Mapping[str, str] = os.environ) -> str:
    """Return how `rkllm-mqtt` is called from another terminal in the same folder.

    An activated virtual environment does not count: another terminal has not activated it.
    """
    script = Path(sys.executable).parent / "rkllm-mqtt"
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m rkllm_mqtt"
    on_path = shutil.which("rkllm-mqtt", path=environ.get("PATH"))
    if on_path is not None and not environ.get("VIRTUAL_ENV") and Path(on_path).resolve() == script.resolve():
        return "rkllm-mqtt"
    here = Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    return shlex.quote(str(shown))


def commands_to_type(running: Running, width: int) -> list[str]:
    """Return three commands that work as they stand, in another terminal in this folder.

    Args:
        running: What they speak with.
        width: A command longer than this many columns is broken with a backslash.
    """
    where = "" if running.noted else f" --host {running.host} --port {running.port}"
    ours = command_word()
    commands = [f'{ours} ask "{STORY}"{where}', f"{ours} top{where}"]
    if running.broker == "mosquitto" and shutil.which("mosquitto_rr"):
        mailbox = f"{running.base}/{running.node}/client/me"
        parts = [
            f"mosquitto_rr -V 5 -h {running.host} -p {running.port} -t {mailbox}/request",
            f"-e {mailbox}/reply -m 'hello' -W 60",
        ]
        whole = " ".join(parts)
        commands.append(whole if len(whole) + 2 <= width else " \\\n    ".join(parts))
    else:
        commands.append(f"{ours} queue list{where}")
    return commands


def show(terminal: Terminal, running: Running) -> None:
    """Write the screen."""
    width = shutil.get_terminal_size().columns
    runtime = running.info.get("runtime")
    runtime = runtime if isinstance(runtime, Mapping) else {}
    out = terminal.write
    rule = "─" * min(width, 100)
    out(f"{rule}\n", "dim")
    out(" rkllm-mqtt ", "bold")
    out(f"{__version__}  ")
    out("● online\n", "green")
    if runtime.get("simulated") is True:
        out("\n")
        out(" SIMULATED ", "banner")
        out(" No NPU here: a simulated model answers, as fast as a real one.\n")
    out("\n")
    for name, value in _facts(running, runtime):
        out(f"  {name:<9}", "dim")
        out(f"{value}\n")
    out("\nType in another terminal, in this folder:\n\n")
    for command in commands_to_type(running, width):
        out("  " + command + "\n", "bold")
    out("\nCtrl-C stops everything. What happens, as it happens:\n", "dim")
    out(f"{rule}\n", "dim")


def log_line(terminal: Terminal, line: str) -> None:
    """Write one line of the daemon's log, compact; debug lines and blank ones are left out."""
    match = _LOG_LINE.fullmatch(line.strip())
    if match is None:
        if line.strip():
            terminal.write(_cut(f"  {line.rstrip()}", terminal) + "\n", "dim")
        return
    clock, level, event, facts = match.groups()
    if level == "debug" or event in _SHOWN_AS_TRAFFIC:
        return
    head = f"{clock or ''}  {event.replace('_', ' '):<20} "
    styles = _LEVEL_STYLES.get(level, ())
    terminal.write(head, *styles)
    terminal.write(_cut(facts, terminal, len(head)) + "\n", "dim")


def traffic_line(terminal: Terminal, message: Message) -> None:
    """Write one line about a message between a client and the daemon: its topic, never its content."""
    verb = message.topic.split("/")[4]
    arrow, styles = ("→", ("bold",)) if verb in ("request", "cancel") else ("←", ("green",))
    facts = f"{len(message.payload):,} bytes"
    if verb == "reply":
        facts, failed = _outcome(message.payload)
        styles = ("red",) if failed else styles
    head = f"{time.strftime('%H:%M:%S')}  {arrow} {harmless(message.topic)}"
    terminal.write(head, *styles)
    terminal.write(f"  {_cut(facts, terminal, len(head) + 2)}\n", "dim")


def _outcome(payload: bytes) -> tuple[str, bool]:
    """Return what to say of an answer, and whether it is an error."""
    try:
        final = json.loads(payload)
    except ValueError:
        final = None
    if not isinstance(final, dict):
        return f"{len(payload):,} bytes of text", payload.startswith(b"ERROR ")
    error = final.get("error")
    if isinstance(error, dict):
        return harmless(str(error.get("code"))), True
    usage, timing = final.get("usage"), final.get("timing")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    speed = timing.get("tokens_per_s") if isinstance(timing, dict) else None
    parts = [f"{tokens} tokens" if isinstance(tokens, int) else f"{len(payload):,} bytes"]
    if isinstance(speed, int | float):
        parts.append(f"{speed:.1f} tokens/s")
    return ", ".join(parts), False


def _facts(running: Running, runtime: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    models = running.info.get("models")
    model = models[0] if isinstance(models, list) and models and isinstance(models[0], Mapping) else {}
    context = model.get("context_tokens")
    window = f", window of {context:,} tokens" if isinstance(context, int) else ""
    played = " (played by the simulator)" if runtime.get("simulated") is True else ""
    kept = "kept" if running.kept else "removed at the end"
    state = "" if running.loaded else ", not loaded: see below"
    facts = [
        ("broker", f"{running.broker} on {running.host}:{running.port}, this machine only"),
        ("node", f"{running.node}, topics {running.base}/{running.node}/…"),
        ("model", f"{harmless(str(model['id']))}{window}{state}" if model.get("id") else ""),
        ("runtime", f"{harmless(str(runtime['version']))}{played}" if runtime.get("version") else ""),
        ("files", f"{running.folder} ({kept})"),
    ]
    return [(name, value) for name, value in facts if value]


def _cut(text: str, terminal: Terminal, used: int = 0) -> str:
    room = shutil.get_terminal_size().columns - used
    return text if not terminal.is_terminal or len(text) <= room else text[: max(0, room - 1)] + "…"
