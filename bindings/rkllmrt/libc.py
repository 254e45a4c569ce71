"""The one call to the C library that a captured stdout needs."""

import ctypes


def fflush_c() -> None:
    """Write out what C code has printed so far: in a pipe, the runtime's log is block-buffered."""
    ctypes.CDLL(None).fflush(None)
