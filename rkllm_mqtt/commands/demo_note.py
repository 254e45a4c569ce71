"""The note by which `ask`, `top` and `queue` in another terminal find the broker of a running demo.

It lies in a folder that only this user can write, and counts only while its process lives.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict


class DemoNote(Struct, frozen=True):
    """Where the demo's broker is."""

    host: str
    port: int
    base: str
    node: str
    pid: int
    """Process of `rkllm-mqtt demo`."""
    started: str
    """Start of that process as the kernel counts it: a reused pid has another one. Empty without /proc."""
    protocol: str = "auto"
    """MQTT version that the broker speaks."""


def note_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the note is kept for this user; the file may be absent."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "rkllm-mqtt" / "demo.json"
    standard = Path(f"/run/user/{os.getuid()}")
    if standard.is_dir() and os.access(standard, os.W_OK):
        return standard / "rkllm-mqtt" / "demo.json"
    return Path(f"/tmp/rkllm-mqtt-{os.getuid()}/demo.json")


def read_note(path: Path | None = None) -> DemoNote | None:
    """Return the note of the demo that runs now; None when there is none or it cannot be trusted."""
    path = path or note_path()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None  # /tmp is open to all: somebody else's note could send prompts to their broker
            found = json.loads(file.read(4096))
        note = DemoNote(**found)
        alive = isinstance(note.pid, int) and note.pid > 0 and started_of(note.pid) == note.started
    except (OSError, ValueError, TypeError):
        return None
    return note if alive and isinstance(note.port, int) else None


def write_note(note: DemoNote, path: Path | None = None) -> Path:
    """Write the note, readable by this user alone, and return its path.

    Raises:
        OSError: The folder cannot be made, or belongs to somebody else.
    """
    path = path or note_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.lstat()
    if folder.st_uid != os.getuid() or not stat.S_ISDIR(folder.st_mode):
        raise PermissionError(f"{path.parent} belongs to another user")
    fresh = path.with_name(f"{path.name}.{note.pid}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(note), file)
    fresh.replace(path)
    return path


def remove_note(pid: int, path: Path | None = None) -> None:
    """Remove the note if it is that process's own."""
    path = path or note_path()
    note = read_note(path)
    if note is not None and note.pid == pid:
        path.unlink(missing_ok=True)


def started_of(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot; empty where /proc is absent.

    Raises:
        ProcessLookupError: There is no such process.
    """
    try:
        # The name in parentheses may hold blanks and parentheses itself: count from its end.
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except FileNotFoundError:
        os.kill(pid, 0)
        return ""
    except IndexError:
        return ""
