"""Read a journal without being its owner: beside a running daemon, or a backup.

Nothing is written, and the daemon never waits for a reader. A transaction that stays open would however
keep the write-ahead log from being reused, so whoever reads for a long time reads in pages.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from rkllm_mqtt.store.errors import StoreError, from_sqlite
from rkllm_mqtt.store.schema import SCHEMA_VERSION, check_owner

_BUSY_TIMEOUT_S = 5.0
_LEFT_OPEN = frozenset({"SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT"})
_START_ONCE = "start the daemon: it brings its journal in order"
_AS_OWNER = "run it as the user of the daemon, or as root"


@contextmanager
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the journal at `path` for reading only; it may be of any schema up to ours.

    Raises:
        StoreError: There is none, or it may not be read; also for an error of SQLite within the block.
        StoreCorrupt: Not a journal.
        SchemaTooNew: Written by a later version.
    """
    _look(path)
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
        )
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    try:
        check_owner(connection, path, known=SCHEMA_VERSION)
        if not schema_of(connection):
            raise StoreError(f"{path} is empty", "the daemon fills it at its first start")
        yield connection
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") in _LEFT_OPEN:
            raise StoreError(f"{path} was left in the middle of a write", _START_ONCE) from error
        raise from_sqlite(error, path) from error
    finally:
        connection.close()


def schema_of(connection: sqlite3.Connection) -> int:
    """Return the version of the schema; 0 before the first step."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _look(path: Path) -> None:
    """Give what SQLite only calls `unable to open` its reason."""
    try:
        path.stat()
    except FileNotFoundError:
        raise StoreError(
            f"there is no journal at {path}",
            "name the daemon's configuration with --config, or the file with --journal",
        ) from None
    except PermissionError as error:
        raise StoreError(f"the journal {path} may not be read", _AS_OWNER) from error
    except OSError as error:
        raise StoreError(f"the journal {path} cannot be read ({error})") from error
    # Not by opening it: closing a second descriptor drops the locks that SQLite holds in this process.
    if not os.access(path, os.R_OK):
        raise StoreError(f"the journal {path} may not be read", _AS_OWNER)
