"""Questions to the journal that need an answer at once, on the thread of the event loop."""

import contextlib
import sqlite3
from pathlib import Path

_CACHE_KIB = 64


class Lookup:
    """A connection that only reads; in WAL mode it neither waits for the writer nor holds it up.

    Args:
        path: The database, which exists and is open for writing elsewhere in this process.

    Raises:
        sqlite3.Error: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0, isolation_level=None
        )
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def may_know(self, target: str, client: str, request_id: str) -> bool:
        """Return whether a job of this id may be stored; what is being committed is not seen.

        Takes some 10 microseconds while the index is in memory. A disk that cannot be read knows everything.
        """
        with contextlib.suppress(sqlite3.Error):
            found = self._connection.execute(
                "SELECT 1 FROM jobs WHERE target = ? AND client = ? AND id = ?", (target, client, request_id)
            )
            return found.fetchone() is not None
        return True

    def close(self) -> None:
        """Close it, before the writer's connection: the last one to close tidies the log away."""
        self._connection.close()
