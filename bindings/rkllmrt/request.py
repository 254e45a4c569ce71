"""What one rkllm_run is given, kept for as long as the library may read it or go on with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from rkllmrt.block import Block
from rkllmrt.run import Deliver

Reader = Callable[[Any], Deliver]
"""Turns the caller's token callback into what reads the library's results for it."""


class Request(Struct, frozen=True):
    """A run as it was asked for; a paused one is resumed with the same memory."""

    inputs: Block
    params: Block
    keep_history: bool
    reader: Reader
    cache_file: Path | None
    """Where the saved prompt cache shall be at the end; the library writes to `unfinished` of it."""

    def keep_cache(self) -> Path | None:
        """Give the saved cache its name and return it; None when the run left none, as an aborted one may."""
        if self.cache_file is None or not unfinished(self.cache_file).exists():
            return None
        return unfinished(self.cache_file).replace(self.cache_file)

    def discard_cache(self) -> None:
        """Remove what a failed run may have written."""
        if self.cache_file is not None:
            unfinished(self.cache_file).unlink(missing_ok=True)


def unfinished(target: Path) -> Path:
    """Return the name under which a cache is written: a file cut short must not be taken for one."""
    return target.with_name(f"{target.name}.part")
