"""Let imports do without what they would use if it were there: memory and time that nobody gains from."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Let imports not find these modules, unless they are there already; afterwards they can be found."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is the import system's "no"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
