"""Space set aside beside the journal, given up when the disk is full so that finals still fit."""

import contextlib
import os
from pathlib import Path

LEAST_FREE_BYTES = 1 << 20
"""Free space below this is never called enough, however small the ballast is."""


class Ballast:
    """A preallocated file; `size` 0 sets nothing aside but still judges whether space is back."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def hold(self) -> bool:
        """Set the space aside; False when the disk does not have it, and then nothing is kept."""
        if self._size_bytes == 0:
            self.release()
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.ftruncate(descriptor, self._size_bytes)
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError:
            self.release()
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> None:
        """Give the space back to the disk."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def regain(self) -> bool:
        """Set the space aside again if as much would still be free beside it; say whether it is held."""
        if self.free_bytes() < max(2 * self._size_bytes, LEAST_FREE_BYTES):
            return False
        return self.hold()

    def free_bytes(self) -> int:
        """Return the space that this user may still fill on the journal's disk; 0 if unknown."""
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize
