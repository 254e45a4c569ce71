"""SQL on registered prefixes: kept, used, forgotten."""

import sqlite3

from msgspec import Struct


class PrefixRow(Struct, frozen=True):
    """A registered prefix as it is kept; its texts are opaque to the journal."""

    client: str
    name: str
    request: str
    """Model, messages and tools in canonical JSON."""
    ttl_s: float
    used_at: float
    """Seconds of the journal clock."""
    uses: str
    """By hour of the day, in JSON."""


def keep(connection: sqlite3.Connection, row: PrefixRow) -> None:
    """Store a prefix in the place of that of the same name."""
    connection.execute(
        "INSERT INTO prefixes (client, name, request, ttl_s, used_at, uses) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (client, name) DO UPDATE SET request = excluded.request, ttl_s = excluded.ttl_s,"
        " used_at = excluded.used_at, uses = excluded.uses",
        (row.client, row.name, row.request, row.ttl_s, row.used_at, row.uses),
    )


def note_use(connection: sqlite3.Connection, client: str, name: str, used_at: float, uses: str) -> None:
    """Note that a prefix was used; without effect when it is gone."""
    connection.execute(
        "UPDATE prefixes SET used_at = ?, uses = ? WHERE client = ? AND name = ?",
        (used_at, uses, client, name),
    )


def forget(connection: sqlite3.Connection, client: str, name: str) -> bool:
    """Remove a prefix; return whether there was one."""
    removed = connection.execute("DELETE FROM prefixes WHERE client = ? AND name = ?", (client, name))
    return removed.rowcount > 0


def all_of(connection: sqlite3.Connection) -> list[PrefixRow]:
    """Return every prefix, the one used last at the end."""
    rows = connection.execute(
        "SELECT client, name, request, ttl_s, used_at, uses FROM prefixes ORDER BY used_at, client, name"
    )
    return [PrefixRow(*row) for row in rows]
