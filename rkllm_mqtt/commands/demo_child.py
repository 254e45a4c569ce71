"""A child process of the demo: its output is read line by line, and it never outlives the demo."""

import ctypes
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1
_LAST_LINES = 12


class Child:
    """A running process; starting it is creating it.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(self, name: str, line: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        """What the person calls it."""
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        """Its newest lines, for the obituary."""
        self._rest = b""
        self._ended = False
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            # Only when the demo itself is killed hard: everything else ends in `stop`.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        # `preexec_fn` is safe here: the demo has one thread, and only a system call happens in between.
        self._process = subprocess.Popen(
            list(line),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            # Ctrl-C in the terminal is for the demo, which then stops its children in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        os.set_blocking(self.fileno(), False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with output or the end."""
        pipe = self._process.stdout
        return pipe.fileno() if pipe is not None else -1

    @property
    def is_silent(self) -> bool:
        """Return whether its output has ended; nothing is to be waited for any more."""
        return self._ended

    @property
    def exit_status(self) -> int | None:
        """Return how it ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def lines(self) -> list[str]:
        """Return the lines that are there now, without waiting."""
        found: list[str] = []
        while not self._ended:
            try:
                block = os.read(self.fileno(), 65536)
            except BlockingIOError:
                break
            self._ended = not block
            *whole, self._rest = (self._rest + block).split(b"\n")
            if self._ended and self._rest:
                whole, self._rest = [self._rest], b""
            found += [line.decode("utf-8", "replace").rstrip("\r") for line in whole]
        self.last.extend(found)
        return found

    def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, then SIGKILL after `grace_s` seconds."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                # `communicate` keeps reading: a child whose pipe is full could not end.
                rest, _ = self._process.communicate(timeout=grace_s)
                self.last.extend(rest.decode("utf-8", "replace").splitlines() if rest else [])
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._ended = True
