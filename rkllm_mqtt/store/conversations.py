"""SQL on kept conversations: their history, one more turn, what expires, what is forgotten."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class ConversationKey(Struct, frozen=True):
    """Whose conversation it is: nobody else can reach it."""

    target: str
    client: str
    id: str


class ConversationLimits(Struct, frozen=True):
    """How much is kept."""

    conversations: int
    """Of all clients together; the one not used for longest goes."""
    turns: int
    """Of one conversation; the oldest goes."""
    bytes: int
    """Of one conversation's messages as JSON; the oldest turns go, the newest stays whatever its size."""
    ttl_s: float
    """Not used for so long, a conversation is gone."""


class ConversationTurn(Struct, frozen=True):
    """What one successful request adds."""

    key: ConversationKey
    messages: Sequence[Mapping[str, Any]]
    """The question's, then the answer's."""


class ConversationShown(Struct, frozen=True):
    """A conversation as an administrator sees it: nothing of its content."""

    key: ConversationKey
    turns: int
    bytes: int
    used_at: float
    """Seconds of the journal clock."""


def history(
    connection: sqlite3.Connection, key: ConversationKey, *, now: float, ttl_s: float
) -> list[dict[str, Any]]:
    """Return the messages of a conversation in order; none when it is new or has expired."""
    rows = connection.execute(
        "SELECT messages FROM conversation_turns JOIN conversations ON conversations.seq = conversation"
        " WHERE target = ? AND client = ? AND id = ? AND used_at >= ? ORDER BY conversation_turns.seq",
        (key.target, key.client, key.id, now - ttl_s),
    )
    return [message for (messages,) in rows for message in json.loads(messages)]


def append(
    connection: sqlite3.Connection, turn: ConversationTurn, limits: ConversationLimits, *, now: float
) -> None:
    """Add a turn, and let go what is beyond the limits; an expired conversation begins anew."""
    key = turn.key
    expire(connection, now=now, ttl_s=limits.ttl_s)
    (seq,) = connection.execute(
        "INSERT INTO conversations (target, client, id, used_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (target, client, id) DO UPDATE SET used_at = excluded.used_at RETURNING seq",
        (key.target, key.client, key.id, now),
    ).fetchone()
    text = json.dumps(list(turn.messages), ensure_ascii=False, separators=(",", ":"))
    connection.execute("INSERT INTO conversation_turns (conversation, messages) VALUES (?, ?)", (seq, text))
    _drop_old_turns(connection, seq, limits)
    connection.execute(
        "DELETE FROM conversations WHERE seq IN"
        " (SELECT seq FROM conversations ORDER BY used_at DESC, seq DESC LIMIT -1 OFFSET ?)",
        (limits.conversations,),
    )


def expire(connection: sqlite3.Connection, *, now: float, ttl_s: float) -> int:
    """Remove the conversations that were not used for so long; return how many."""
    return connection.execute("DELETE FROM conversations WHERE used_at < ?", (now - ttl_s,)).rowcount


def forget(connection: sqlite3.Connection, key: ConversationKey) -> bool:
    """Remove a conversation; return whether there was one."""
    removed = connection.execute(
        "DELETE FROM conversations WHERE target = ? AND client = ? AND id = ?",
        (key.target, key.client, key.id),
    )
    return removed.rowcount > 0


def listing(connection: sqlite3.Connection, limit: int) -> list[ConversationShown]:
    """Return the conversations, the one used last first."""
    rows = connection.execute(
        "SELECT target, client, id, count(turns.seq),"
        " coalesce(sum(length(CAST(messages AS BLOB))), 0), used_at"
        " FROM conversations LEFT JOIN conversation_turns AS turns ON turns.conversation = conversations.seq"
        " GROUP BY conversations.seq ORDER BY used_at DESC, conversations.seq DESC LIMIT ?",
        (limit,),
    )
    return [
        ConversationShown(ConversationKey(target, client, name), turns, size, used_at)
        for target, client, name, turns, size, used_at in rows
    ]


def _drop_old_turns(connection: sqlite3.Connection, conversation: int, limits: ConversationLimits) -> None:
    rows = connection.execute(
        "SELECT seq, length(CAST(messages AS BLOB)) FROM conversation_turns WHERE conversation = ?"
        " ORDER BY seq DESC",
        (conversation,),
    ).fetchall()
    size = 0
    for number, (seq, length) in enumerate(rows, 1):
        size += length
        if number > 1 and (number > limits.turns or size > limits.bytes):
            connection.execute(
                "DELETE FROM conversation_turns WHERE conversation = ? AND seq <= ?", (conversation, seq)
            )
            return
