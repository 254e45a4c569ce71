"""The machine as a daemon sees it: its clocks, its boot and its disk, moved from outside while it runs.

A small library of ours is loaded before the C library (`shim.c`); no privilege is needed.
"""

import mmap
import os
import struct
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")
_WALL, _BOOT, _FREE, _FAILING, _BOOT_FILE, _FOLDER, _SIZE = 0, 8, 16, 24, 32, 544, 1056


class Machine:
    """One simulated board."""

    def __init__(self, folder: Path, disk: Path) -> None:
        """Compile the library and write the page that it reads.

        Args:
            folder: Where both are kept.
            disk: The folder whose files the quota counts.

        Raises:
            OSError, subprocess.CalledProcessError: There is no C compiler, or it refused.
        """
        library, page = folder / "shim.so", folder / "shim.page"
        line = [
            os.environ.get("CC", "cc"),
            "-O1",
            "-Wall",
            "-shared",
            "-fPIC",
            str(_SOURCE),
            "-o",
            str(library),
            "-ldl",
        ]
        subprocess.run(line, check=True, capture_output=True)
        page.write_bytes(bytes(_SIZE))
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _SIZE)
        self._boot_file = folder / "boot_id"
        self._put(_FREE, -1)
        for at, path in ((_BOOT_FILE, self._boot_file), (_FOLDER, disk)):
            name = os.fsencode(path)
            self._page[at : at + len(name)] = name
        self._boot_file.write_text(f"{uuid.uuid4()}\n")
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "CHAOS_PAGE": str(page)}

    def step_wall(self, seconds: float) -> None:
        """Move the wall clock by so much."""
        self._put(_WALL, self._get(_WALL) + int(seconds * 1e9))

    def set_wall(self, at: float | None) -> None:
        """Set the wall clock to Unix seconds; None is the true time."""
        self._put(_WALL, 0 if at is None else int((at - time.time()) * 1e9))

    def wall_s(self) -> float:
        """Return the wall clock, Unix seconds."""
        return time.time() + self._get(_WALL) / 1e9

    def reboot(self) -> None:
        """Begin another boot, some seconds ago; the daemon must be dead."""
        self._boot_file.write_text(f"{uuid.uuid4()}\n")
        self._put(_BOOT, int((8 - time.clock_gettime(time.CLOCK_BOOTTIME)) * 1e9))

    def limit_disk(self, free_bytes: int | None) -> None:
        """Let the disk take so many more bytes; None is no limit."""
        self._put(_FREE, -1 if free_bytes is None else free_bytes)

    def fail_disk(self, error: int | None) -> None:
        """Let every write and sync fail with this errno; None: they work again."""
        self._put(_FAILING, error or 0)

    @property
    def free_bytes(self) -> int | None:
        """Return what is left of the limit."""
        left = self._get(_FREE)
        return None if left < 0 else left

    def close(self) -> None:
        """Let the page go."""
        self._page.close()

    def _get(self, at: int) -> int:
        number: int = struct.unpack_from("q", self._page, at)[0]
        return number

    def _put(self, at: int, number: int) -> None:
        struct.pack_into("q", self._page, at, number)
