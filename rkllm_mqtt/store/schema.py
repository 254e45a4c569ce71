"""Open the journal's database: private files, pragmas, integrity, and the steps from older schemas."""

import os
import sqlite3
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rkllm_mqtt.store.errors import MOVE_IT_AWAY, SchemaTooNew, StoreCorrupt, StoreError, from_sqlite

APPLICATION_ID = 0x524B4C4D
"""`RKLM` in ASCII: tells our file from another program's database."""

MIGRATIONS: Sequence[str] = ("schema_v1.sql", "schema_v2.sql", "schema_v3.sql", "schema_v4.sql")
"""Files of this package in order; the first builds version 1, the next leads from 1 to 2, and so on."""

SCHEMA_VERSION = len(MIGRATIONS)

_BUSY_TIMEOUT_S = 2.0
# Only a person's sqlite3 shell or a backup can hold the write lock beside us; both are brief.

_WAL_PAGES = 2000
# The writer moves the WAL into the database when it is idle. This bound (8 MB) is for the hours when
# it never is: SQLite then does it within a commit, which costs that one commit two syncs more.


def open_database(path: Path, *, steps: Sequence[str] | None = None) -> sqlite3.Connection:
    """Return a connection to the journal at `path`, created or brought to the present schema.

    The folder must exist; the files are 0600. The connection is in autocommit mode and belongs
    to the calling thread. A refused file is left as it was.

    Args:
        path: The database file.
        steps: SQL text per version instead of `MIGRATIONS`.

    Raises:
        StoreCorrupt: Not a journal, or damaged.
        SchemaTooNew: Written by a later version.
        StoreFull, StoreError: The disk does not allow it.
    """
    if steps is None:
        steps = [_sql(name) for name in MIGRATIONS]
    make_private(path)
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    try:
        check_owner(connection, path, known=len(steps))
        _check_integrity(connection, path)
        _set_pragmas(connection)
        migrate(connection, steps)
    except sqlite3.Error as error:
        connection.close()
        raise from_sqlite(error, path) from error
    except StoreError:
        connection.close()
        raise
    return connection


def make_folder(folder: Path) -> None:
    """Create `folder` for its owner alone (0700); one that exists keeps its mode.

    Raises:
        StoreError: It cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} of the journal cannot be made ({error})") from error


def make_private(path: Path) -> None:
    """Create an empty file (0600), or take others' rights from the files that exist.

    SQLite gives `-wal` and `-shm` the mode of the database. Call it before a connection is open:
    closing any descriptor of the file would drop the locks that SQLite holds in this process.

    Raises:
        StoreError: The file cannot be created or changed.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if file.exists() and file.stat().st_mode & 0o077:
                file.chmod(0o600)
        # Not only when it is new: an earlier start may have died between creating and syncing.
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"the journal {path} cannot be opened ({error})") from error


def sync_folder(folder: Path) -> None:
    """Make names created in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Bring the schema to version `len(steps)`, each step whole or not at all.

    Raises:
        sqlite3.Error: A step failed; close the connection, and the version before it stands.
    """
    version = _pragma(connection, "user_version")
    for reached, sql in enumerate(steps[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{sql}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {reached};\nCOMMIT;"
        )


def check_owner(connection: sqlite3.Connection, path: Path, *, known: int) -> None:
    """Refuse what is not ours before anything is written to it; an empty database is nobody's.

    Raises:
        StoreCorrupt: Another program's database.
        SchemaTooNew: Written by a version that knows more schemas than `known`.
    """
    if _pragma(connection, "application_id") == APPLICATION_ID:
        version = _pragma(connection, "user_version")
        if version > known:
            raise SchemaTooNew(path, version, known)
    elif _pragma(connection, "schema_version"):
        raise StoreCorrupt(
            f"{path} is a database, but not a journal of rkllm-mqtt", "set another path for the journal"
        )


def _set_pragmas(connection: sqlite3.Connection) -> None:
    # auto_vacuum counts only until the first page is written, so it comes before WAL.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: one fdatasync of the WAL per commit. NORMAL would lose acknowledged jobs in a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Removed prompts and answers are overwritten, also where a whole page of them becomes free. FAST would
    # spare that write and leave them readable until the page is used again.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    connection.execute("PRAGMA journal_size_limit = 4194304")


def _check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreCorrupt(
            f"{path} is damaged ({verdict})",
            MOVE_IT_AWAY,
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _sql(name: str) -> str:
    return resources.files("rkllm_mqtt.store").joinpath(name).read_text(encoding="utf-8")
