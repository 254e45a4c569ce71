"""Processes of `rkllm-mqtt` that are forks of a Python which has imported them already.

Half a second of imports is most of what a daemon in a test costs. A fork is a process like any other: its own
signals, descriptors, environment and exit status. What depends on how a process comes into being (LD_PRELOAD,
Python's own variables) is not for forks: see `may_fork`. `forking_python.py` is the other side.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

_AT_BIRTH = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
"""Beginnings of variables that a process looks at only when it begins."""
_FORKING = Path(__file__).with_name("forking_python.py")

Kind = Literal["daemon", "command"]
"""What is imported: what a daemon without TLS needs, or what commands and a daemon with TLS do."""


class Forked:
    """A process of `rkllm-mqtt`; what `subprocess.Popen` has of it."""

    def __init__(self, python: "ReadyPython", pid: int) -> None:
        self._python = python
        self._ended = os.pidfd_open(pid)
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._ended, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("rkllm-mqtt", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(self._python.ask({"reap": self.pid}))
            os.close(self._ended)
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._ended, number)


class ReadyPython:
    """The process that forks; it starts with the first order."""

    def __init__(self, kind: Kind) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = [sys.executable, "-P", str(_FORKING), str(theirs.fileno()), kind]
        nothing = subprocess.DEVNULL  # nothing that was decided of a terminal goes into the forks
        self._process = subprocess.Popen(line, stdin=nothing, stdout=nothing, pass_fds=(theirs.fileno(),))
        theirs.close()
        self._socket = ours
        atexit.register(self._close)

    def spawn(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, *descriptors: int
    ) -> Forked:
        """Start `python -P -m rkllm_mqtt WORDS...` in a folder; `descriptors` become 0, 1 and 2."""
        order = {"words": list(words), "environment": dict(environment), "folder": str(folder)}
        return Forked(self, self.ask(order, *descriptors))

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, given: bytes, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; return what it printed.

        Raises:
            subprocess.TimeoutExpired: It took longer, and was killed.
        """
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write(given)
            files[0].seek(0)
            process = self.spawn(words, environment, folder, *(file.fileno() for file in files))
            try:
                status = process.wait(timeout)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
            for file in files:
                file.seek(0)
            return subprocess.CompletedProcess(words, status, files[1].read(), files[2].read())

    def ask(self, order: dict[str, Any], *descriptors: int) -> int:
        """Send an order and return what it brings."""
        socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
        return int(self._socket.recv(64))

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(20)


@functools.cache
def ready_python(kind: Kind = "command") -> ReadyPython:
    """Return the one of this process and kind."""
    return ReadyPython(kind)


def may_fork(environment: Mapping[str, str]) -> bool:
    """Return whether a fork is like a process that starts with this environment."""

    def at_birth(of: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in of.items() if name.startswith(_AT_BIRTH)}

    return at_birth(environment) == at_birth(os.environ)
