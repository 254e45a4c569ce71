"""Checks of the journal: its folder, the space on its disk, and whether a daemon uses it."""

import fcntl
import os
from enum import Enum
from pathlib import Path

from rkllm_mqtt.commands.doctoring.finding import Finding, Group
from rkllm_mqtt.commands.doctoring.subject import Subject
from rkllm_mqtt.host.disk import free_mb

GROUP = Group("Journal")
LEAST_FREE_MB = 64
LITTLE_FREE_MB = 512


class Use(Enum):
    """Whether a daemon of this computer has the journal open."""

    FREE = "free"
    HELD = "held"
    UNKNOWN = "unknown"
    """This user may not look."""


def check_journal(subject: Subject) -> list[Finding]:
    """Return the findings about the journal."""
    path = subject.config.journal.path
    return [folder(path), space(path, subject.config.journal.ballast_mb)]


def folder(path: Path) -> Finding:
    """Check that the journal can be created or written."""
    nearest = next((place for place in path.absolute().parents if _there(place)), Path("/"))
    writable = os.access(nearest, os.W_OK | os.X_OK, effective_ids=True)
    if writable and _there(path):
        writable = os.access(path, os.R_OK | os.W_OK, effective_ids=True)
    if writable:
        return GROUP.ok("folder", f"{path} can be {'written' if _there(path) else 'created'}")
    if os.statvfs(nearest).f_flag & os.ST_RDONLY:
        return GROUP.fail(
            "folder", f"{nearest} is on a read-only file system.", "Mount it writable, or move it."
        )
    if use_of(path) is not Use.FREE:
        advice = "Run the doctor as the daemon's user to be sure."
        return GROUP.skip("folder", f"{path} belongs to another user.", advice)
    advice = f"Create {path.parent} for the daemon's user, or name another file in `journal.path`."
    return GROUP.fail("folder", f"This user may not write {path}.", advice)


def space(path: Path, ballast_mb: int) -> Finding:
    """Check that prompts and answers fit on the disk."""
    free = free_mb(path)
    if free is None:
        return GROUP.skip("disk", "The free space cannot be read.")
    advice = "Delete something, or move `journal.path` to another disk."
    if free < LEAST_FREE_MB + ballast_mb:
        return GROUP.fail("disk", f"Only {free} MB are free.", advice)
    if free < LITTLE_FREE_MB:
        return GROUP.warn("disk", f"Only {free} MB are free.", advice)
    return GROUP.ok("disk", f"{free / 1024:.1f} GB are free" if free >= 1024 else f"{free} MB are free")


def use_of(path: Path) -> Use:
    """Ask the journal's lock file whether a daemon holds it, without leaving a trace.

    A shared lock is tried for a moment: it conflicts with the daemon's exclusive one and with nothing else.
    """
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Use.FREE
    except OSError:
        return Use.UNKNOWN
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Use.HELD
    except OSError:
        return Use.UNKNOWN
    finally:
        os.close(descriptor)
    return Use.FREE


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that this user may not enter
        return False
