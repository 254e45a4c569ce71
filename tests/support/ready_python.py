"""A Python that has imported the daemon already, and forks for each process that is asked of it.

Half a second of imports is most of what a daemon in a test costs. A fork is a process like any other: its own
signals, descriptors, environment and exit status; `main` ends as at any other start, through the interpreter.
What depends on how a process comes into being (LD_PRELOAD, Python's own variables) is not for forks: see
`may_fork`. It runs as `python -P ready_python.py DESCRIPTOR` and ends when nobody holds the other end.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_IMPORTED = ("rkllm_mqtt.commands.run", "rkllm_mqtt.serving", "rkllm_mqtt.supervision")
_AT_BIRTH = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
"""Beginnings of variables that a process looks at only when it begins."""
_ORDER_BYTES = 100_000


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

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = [sys.executable, "-P", __file__, str(theirs.fileno())]
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
def ready_python() -> ReadyPython:
    """Return the one of this process."""
    return ReadyPython()


def may_fork(environment: Mapping[str, str]) -> bool:
    """Return whether a fork is like a process that starts with this environment."""

    def at_birth(of: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in of.items() if name.startswith(_AT_BIRTH)}

    return at_birth(environment) == at_birth(os.environ)


def _serve(orders: socket.socket) -> NoReturn:
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, and for what was forked
    while True:
        line, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 3)
        if not line:
            raise SystemExit(0)
        order = json.loads(line)
        if "reap" in order:
            orders.send(b"%d" % os.waitpid(order["reap"], 0)[1])
            continue
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(b"%d" % pid)


def _become(order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    os.chdir(order["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module = importlib.import_module("rkllm_mqtt.__main__")
    sys.argv = [str(module.__file__), *order["words"]]
    sys.orig_argv = [sys.executable, "-P", "-m", "rkllm_mqtt", *order["words"]]  # for a start anew
    raise SystemExit(module.main())


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
