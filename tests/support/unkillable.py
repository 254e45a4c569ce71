"""Hold a process in its exit, so that SIGKILL does not end it: as one that hangs inside a driver."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PTRACE_SEIZE = 0x4206
_PTRACE_O_TRACEEXIT = 0x40
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


@contextmanager
def unkillable(pid: int) -> Iterator[None]:
    """Keep a descendant of this process from ending, whatever kills it, until the block is left.

    A traced process stops on its way out and stays until its tracer lets it go (ptrace(2),
    PTRACE_EVENT_EXIT). It must not be a child of this process: its parent could not reap it anyway, but we
    would see its stops.
    """
    seized, let_go = threading.Event(), threading.Event()
    failed: list[OSError] = []

    def trace() -> None:
        # All of it on one thread: the tracer of Linux is a thread, and its end would release the process.
        if _LIBC.ptrace(_PTRACE_SEIZE, pid, None, _PTRACE_O_TRACEEXIT) != 0:
            number = ctypes.get_errno()
            failed.append(OSError(number, os.strerror(number)))
        seized.set()
        let_go.wait()

    tracer = threading.Thread(target=trace, name="tracer")
    tracer.start()
    seized.wait()
    try:
        if failed:
            raise failed[0]
        yield
    finally:
        let_go.set()
        tracer.join()
