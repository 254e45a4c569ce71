"""Free space of a file system."""

import os
from pathlib import Path

MB = 1_048_576


def free_mb(path: Path) -> int | None:
    """Return the MB (1,048,576 bytes) that this user can still write where `path` is or will be.

    A path that does not exist yet is measured at its nearest existing parent. None when that cannot be read.
    """
    for place in (path, *path.absolute().parents):
        try:
            status = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return status.f_bavail * status.f_frsize // MB
    return None
