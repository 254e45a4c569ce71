"""Turn Ctrl-C and the other ways to end a command into something a `select` can wait for.

An exception raised by a signal in the middle of the MQTT library could leave a packet half written;
a flag with a file descriptor cannot.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """While entered, SIGINT, SIGTERM and SIGHUP only set `count` and make `fileno()` readable.

    The third one raises KeyboardInterrupt: whoever insists gets out of anything.
    """

    def __init__(self) -> None:
        self.count = 0
        """Signals seen so far."""
        self.last: int | None = None
        """Number of the newest signal."""
        self._read, self._write = -1, -1
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    @property
    def exit_status(self) -> int:
        """Return 128 plus the signal's number, as a shell reports it."""
        return 128 + (self.last or signal.SIGINT)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with a signal; `clear` empties it."""
        return self._read

    def clear(self) -> None:
        """Make `fileno()` wait for the next signal; `count` stays."""
        os.set_blocking(self._read, False)
        try:
            os.read(self._read, 64)
        except BlockingIOError:
            return

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.last = number
        if self.count > 2:
            raise KeyboardInterrupt
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # 64 kB of unread signals: it is readable already
