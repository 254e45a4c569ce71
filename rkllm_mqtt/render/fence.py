"""Render with a template from a file, in a process of its own that is ended when it takes too long.

Rule: a template file is a program that others wrote. What it does costs this prompt, never the daemon.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rkllm_mqtt.logs import get_logger

from .errors import RenderError
from .renderer import Rendered, Renderer, Thinking
from .template import FAMILIES

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

log = get_logger(__name__)

_START_S = 30.0
"""Longest start of the process: a slow board loads a model meanwhile."""
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME")


def bare_environment() -> dict[str, str]:
    """Return what a process of ours needs to start, and nothing that tells of the daemon."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


class FencedRenderer:
    """Does what a `Renderer` does; may be called from any thread, one call at a time is carried out.

    Args:
        template: The path of a Hugging Face template.
        thinking: As for a `Renderer`.
        system: As for a `Renderer`.
        limit_s: Longest rendering of one prompt, seconds.

    Raises:
        RenderError: The template cannot be used.
    """

    def __init__(self, template: str, *, thinking: Thinking, system: str | None, limit_s: float) -> None:
        self._template = template
        self._limit_s = limit_s
        self._opening = {"template": template, "thinking": thinking, "system": system, "limit_s": limit_s}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False
        with self._lock:
            self._start()

    @property
    def pid(self) -> int | None:
        """Return the id of the process; None when there is none."""
        return self._process.pid if self._process else None

    def render(self, messages: Sequence[Mapping[str, object]], **options: Any) -> Rendered:
        """Return the prompt, as `Renderer.render` does, after at most `limit_s` and the start of a process.

        Raises:
            RenderError: As there; also when the template takes too long or too much.
        """
        with self._lock:
            if self._closed:
                raise RenderError("the daemon is ending", "send the request again")
            if self._connection is None:
                self._start()
            found = self._ask({"messages": messages, **options}, self._limit_s)
        return Rendered(**{name: _frozen(value) for name, value in found.items()})

    def close(self) -> None:
        """End the process, also in the middle of a prompt; there will be no other."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._end()

    def _start(self) -> None:
        from multiprocessing.connection import Connection  # a megabyte that most daemons never need

        ours, theirs = socket.socketpair()
        with theirs:
            self._connection = Connection(ours.detach())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rkllm_mqtt.render.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=bare_environment(),
                start_new_session=True,  # Ctrl-C is for the daemon alone
            )
        try:
            self._ask(self._opening, _START_S)
        except RenderError:
            self._end()
            raise

    def _ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        assert self._connection is not None
        assert self._process is not None
        clock = threading.Timer(limit_s, self._process.send_signal, (signal.SIGKILL,))
        clock.start()
        try:
            self._connection.send_bytes(json.dumps(question).encode())
            found: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (OSError, EOFError):  # its end of the pair is closed: it was killed, by us or by the kernel
            self._end()
            log.warning("template_ended", template=self._template, limit_s=limit_s)
            raise RenderError(
                f"template {self._template}: took more than {limit_s:g} s, or more memory than it may have",
                f"correct the template, or use one of {', '.join(FAMILIES)} or runtime instead",
            ) from None
        finally:
            clock.cancel()
        if "error" in found:
            error = found["error"]
            raise RenderError(error["message"], error["hint"], error["code"])
        return found

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        process, self._process = self._process, None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.wait()


def open_renderer(
    template: str, *, thinking: Thinking, system: str | None, limit_s: float
) -> Renderer | FencedRenderer:
    """Return a renderer of one of our own templates, or a fenced one of a file.

    Raises:
        RenderError: The template cannot be used.
    """
    if template in (*FAMILIES, "raw", "runtime"):
        return Renderer(template, thinking=thinking, system=system)
    return FencedRenderer(template, thinking=thinking, system=system, limit_s=limit_s)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
