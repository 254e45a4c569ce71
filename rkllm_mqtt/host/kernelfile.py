"""Read one value of sysfs, procfs or debugfs; what is absent, denied or garbled is None, never an exception.

Plain `os` calls instead of `pathlib`: the health topic reads some thirty of these every few seconds, and one
must stay in the tens of microseconds.
"""

import os
from pathlib import Path

VALUE_BYTES = 4096
"""Longest value that is read; sysfs itself ends at one page."""


def read_text(path: str | Path) -> str | None:
    """Return the value without the surrounding white space and NUL bytes; None if it cannot be read."""
    raw = read_bytes(path)
    return None if raw is None else raw.decode("utf-8", "replace").strip(" \t\r\n\0")


def read_bytes(path: str | Path) -> bytes | None:
    """Return the first `VALUE_BYTES` bytes of the file; None if it cannot be read.

    Sensors answer with all kinds of errors (EACCES, ENODEV while suspended, EAGAIN, EIO): all mean that there
    is no reading now.
    """
    try:
        # O_NONBLOCK: a path that turns out to be a FIFO or a device must not stop the caller.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(descriptor, VALUE_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_int(path: str | Path) -> int | None:
    """Return the value as a decimal integer; None if it is absent or something else."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def names_in(directory: str | Path) -> list[str]:
    """Return the names in a directory in natural order (`cpu2` before `cpu10`); empty if unreadable."""
    try:
        return sorted((path.name for path in Path(directory).iterdir()), key=natural)
    except OSError:
        return []


def natural(name: str) -> tuple[str, int, str]:
    """Return a sort key that orders trailing numbers by value."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem, int(digits) if digits else -1, name
