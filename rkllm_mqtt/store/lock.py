"""One journal, one daemon: an exclusive lock beside the file.

The lock is a file of its own, because SQLite must let readers (a backup, a person) in while we run.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from rkllm_mqtt.store.errors import JournalInUse, StoreError


class JournalLock:
    """Held from `take` to `release`; the kernel releases it when the process ends in any way."""

    def __init__(self, path: Path) -> None:
        self._journal = path
        self._path = Path(f"{path}.lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock and write our process id beside it.

        Raises:
            JournalInUse: Another process, or another journal object of this one, holds it.
            StoreError: The lock file cannot be opened.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(descriptor)
            os.close(descriptor)
            raise JournalInUse(self._journal, pid) from None
        except OSError as error:
            os.close(descriptor)
            raise self._failed(error) from error
        self._descriptor = descriptor
        # Only a courtesy to whom we refuse: on a full disk the lock counts all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(
            f"the journal {self._journal} cannot be locked: {error.strerror}",
            f"give {self._path.parent} and what is in it to the daemon's user, or name another file in"
            " `journal.path`",
        )

    def release(self) -> None:
        """Give the lock back; without effect when it is not held.

        The file stays: removing it would let two processes lock two files of the same name.
        """
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read_pid(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, 32, 0))
    except (OSError, ValueError):
        return None
