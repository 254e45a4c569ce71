"""What can go wrong with the journal, and whose turn it then is.

StoreError                 the disk or the database; the work of that call is not stored
├── StoreFull              no space: no new job fits, finals still may
├── StoreCorrupt           the file is damaged or not a journal; a person decides
├── SchemaTooNew           a newer rkllm-mqtt wrote it; a person decides
├── JournalInUse           another process owns it
├── JournalClosed          asked after `close`
└── JobError               this job does not allow it; the journal itself is well
    └── UnknownJob · AlreadyFinished · NotFinished
"""

import sqlite3
from pathlib import Path

from rkllm_mqtt.core.job import JobState

MOVE_IT_AWAY = "nothing was removed: move the file away to begin an empty journal, or restore a backup"
"""What to do with a file that cannot be used."""


class StoreError(Exception):
    """Nothing of the failed call is stored; `hint` says what a person can do, or is empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class StoreFull(StoreError):
    """The disk, or a quota on it, has no room."""


class StoreCorrupt(StoreError):
    """The file is damaged or is something else; it is left exactly as it was found."""


class SchemaTooNew(StoreError):
    """The journal was written by a later version, which this one must not guess at."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(
            f"{path} has journal schema {found}, but this rkllm-mqtt knows only schemas up to {known}",
            "install the newer rkllm-mqtt again, or move the journal away to begin an empty one",
        )
        self.found = found
        self.known = known


class JournalInUse(StoreError):
    """Another process holds the journal; `pid` is None where it could not be read."""

    def __init__(self, path: Path, pid: int | None) -> None:
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{path} is in use by {owner}",
            "one journal belongs to one daemon: stop the other one, or give this one a folder of its own",
        )
        self.pid = pid


class JournalClosed(StoreError):
    """The journal is closed, or its loop is gone."""

    def __init__(self) -> None:
        super().__init__("the journal is closed")


class JobError(StoreError):
    """The call does not fit job `seq`; the database is unchanged and well."""

    def __init__(self, seq: int, sentence: str) -> None:
        super().__init__(f"job {seq} {sentence}")
        self.seq = seq


class UnknownJob(JobError):
    """No such row: never accepted, or removed after its retention."""

    def __init__(self, seq: int) -> None:
        super().__init__(seq, "is not in the journal")


class AlreadyFinished(JobError):
    """The job has its one outcome; it is kept, and the second one is not."""

    def __init__(self, seq: int, state: JobState) -> None:
        super().__init__(seq, f"is already {state}")
        self.state = state


class NotFinished(JobError):
    """There is no outcome yet that could be delivered."""

    def __init__(self, seq: int, state: JobState) -> None:
        super().__init__(seq, f"is still {state}")
        self.state = state


def from_sqlite(error: sqlite3.Error, path: Path | None = None) -> StoreError:
    """Return the store's error for an error of SQLite, with `error` as its cause.

    Source: sqlite.org/rescode.html; the low byte of an extended code is the primary one.
    """
    journal = "the journal" if path is None else f"the journal {path}"
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & 0xFF
    found: StoreError
    # SHMSIZE: the index of the log could not be made as long as it must be, which is a full disk.
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        found = StoreFull(
            f"no space for {journal} ({error})", "free some space; the daemon goes on by itself"
        )
    elif primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        found = StoreCorrupt(
            f"{journal} is damaged ({error})",
            MOVE_IT_AWAY,
        )
    elif primary == sqlite3.SQLITE_READONLY:
        found = StoreError(f"{journal} cannot be written ({error})", "the disk or the file is read-only")
    elif primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        found = StoreError(f"{journal} is locked ({error})", "another program holds a write lock on it")
    else:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        found = StoreError(f"{journal} failed ({name}: {error})")
    found.__cause__ = error
    return found
