"""The process that runs a template file: `python -P -m rkllm_mqtt.render.child <fd>`.

A template is a program of whoever wrote it. The sandbox keeps it from Python and the file system; this
process keeps what it spends, in time and memory, from the daemon, and holds nothing worth stealing.

Over the descriptor, in turn: what to open → `{}` or an error; a conversation → a prompt or an error.
"""

import json
import os
import resource
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from msgspec.structs import asdict

from .errors import RenderError
from .renderer import Renderer

MEMORY_BYTES = 512 * 1024 * 1024
"""What a template may use beside what the process has when it starts."""
_LARGEST_PROMPT_BYTES = 64 * 1024 * 1024
_EXIT_BAD_START = 2


def main() -> int:
    """Open the template, then render until the daemon is gone; return the exit status."""
    connection = Connection(int(sys.argv[1]))
    try:
        opening = json.loads(connection.recv_bytes())
        limit_s = opening.pop("limit_s")
        _confine()
        _limit_time(limit_s)
        try:
            renderer = Renderer(**opening)
        except (RenderError, MemoryError, RecursionError) as exc:
            connection.send_bytes(_error(exc))
            return _EXIT_BAD_START
        connection.send_bytes(b"{}")
        while True:
            conversation = json.loads(connection.recv_bytes())
            _limit_time(limit_s)
            connection.send_bytes(_rendered(renderer, conversation))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0


def _rendered(renderer: Renderer, conversation: Mapping[str, Any]) -> bytes:
    if "replays" in conversation:  # JSON has no numbers for keys
        replays = {int(place): text for place, text in conversation["replays"].items()}
        conversation = {**conversation, "replays": replays}
    try:
        prompt = json.dumps(asdict(renderer.render(**conversation))).encode()
    except (RenderError, MemoryError, RecursionError) as exc:
        return _error(exc)
    return prompt if len(prompt) <= _LARGEST_PROMPT_BYTES else _error(MemoryError())


def _error(exc: BaseException) -> bytes:
    if not isinstance(exc, RenderError):
        exc = RenderError(f"the template fails: {type(exc).__name__}", "correct the template, or use another")
    return json.dumps({"error": {"message": exc.message, "hint": exc.hint, "code": exc.code}}).encode()


def _confine() -> None:
    """Take from this process what a template does not need: memory without end, files, core dumps."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs its import
        used = int(file.read().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_AS, used + MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _limit_time(limit_s: float) -> None:
    """Let the kernel end us when the daemon, which watches the clock, is not there to do it."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(spent.ru_utime + spent.ru_stime + limit_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    os._exit(main())
