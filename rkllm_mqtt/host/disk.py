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


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the kind of file system that holds a folder, such as `tmpfs`; None where nobody tells."""
    try:
        text = mounts.read_text()
    except OSError:
        return None
    place, kind, longest = path.resolve(), None, -1
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        mount = Path(words[1].encode().decode("unicode_escape"))
        if place.is_relative_to(mount) and len(mount.parts) >= longest:
            kind, longest = words[2], len(mount.parts)
    return kind
