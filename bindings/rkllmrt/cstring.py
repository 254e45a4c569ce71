"""Turn text into what a C function reads as a string, or refuse it."""

import os
from pathlib import Path

from rkllmrt.errors import InvalidInput


def c_text(value: str | bytes, what: str) -> bytes:
    """Return `value` as UTF-8 without NUL; bytes are taken as they are.

    Raises:
        InvalidInput: a NUL byte, where C would end the text silently, or a lone surrogate.
    """
    try:
        raw = value.encode() if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"{what} is not valid Unicode: {exc.reason}") from exc
    if b"\0" in raw:
        raise InvalidInput(
            f"{what} contains a NUL byte at {raw.index(0)}", "remove it: C ends the text there"
        )
    return raw


def c_path(value: str | Path, what: str) -> bytes:
    """Return a path as the system spells it.

    Raises:
        InvalidInput: empty, or with a NUL byte.
    """
    raw = os.fsencode(value)
    if raw in (b"", b"."):
        raise InvalidInput(f"{what} is empty")
    return c_text(raw, what)
