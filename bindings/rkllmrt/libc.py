"""The two calls to the C library that a captured stdout needs."""

import ctypes

_libc = ctypes.CDLL(None)
_LINE_BUFFERED = 1
"""_IOLBF of stdio.h in glibc and musl."""


def fflush_c() -> None:
    """Write out what C code has printed so far: in a pipe, the runtime's log is block-buffered."""
    _libc.fflush(None)


def line_buffer_c_stdout() -> None:
    """Let C code's stdout be written line by line, so that a crash loses no line; before anything is printed.

    Where the C library has no such symbol the output stays as it is, and `fflush_c` remains.
    """
    try:
        stdout = ctypes.c_void_p.in_dll(_libc, "stdout")
    except ValueError:
        return
    _libc.setvbuf(stdout, None, ctypes.c_int(_LINE_BUFFERED), ctypes.c_size_t(0))
