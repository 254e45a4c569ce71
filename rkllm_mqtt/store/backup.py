"""Copy a journal to one file while the daemon writes it: a snapshot that opens like the journal itself."""

import contextlib
import os
import sqlite3
from pathlib import Path

from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.schema import sync_folder


def back_up(connection: sqlite3.Connection, target: Path) -> int:
    """Write a checked copy to `target`, 0600 and synced, and return its size in bytes.

    The copy is one moment of the journal, whatever is written meanwhile. `target` appears when it is whole:
    a failure, a kill or a power cut leaves at most `target` with `.part` behind its name.

    Args:
        connection: From `reader`, outside of a transaction.
        target: A name that is not taken.

    Raises:
        StoreError: It exists, or cannot be written, or the copy is damaged.
    """
    if target.exists():
        raise StoreError(f"{target} exists already", "a backup replaces nothing: choose another name")
    part = Path(f"{target}.part")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            _copy(connection, part)
            size = part.stat().st_size
            part.rename(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(target.absolute().parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the backup {target} cannot be written ({error})") from error
    return size


def _copy(connection: sqlite3.Connection, part: Path) -> None:
    """Fill `part` in one step, which is one snapshot; the daemon goes on, only its log grows meanwhile."""
    copy = sqlite3.connect(part, isolation_level=None)
    try:
        connection.backup(copy, pages=-1)
        # One file without a log beside it: it can be moved about and read on a read-only medium.
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(
                f"the copy is damaged ({verdict})", "`rkllm-mqtt journal check` looks at the journal"
            )
    finally:
        copy.close()
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
