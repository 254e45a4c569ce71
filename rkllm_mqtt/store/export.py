"""Tell jobs as plain values, for a person's own evaluation; contents only when asked."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from rkllm_mqtt.store.clock import EARLIEST_TRUE_WALL_S, load_checkpoint

_PAGE = 200
# Each page is a transaction of its own: a reader that stops (a pager, a slow pipe) holds nothing up.

_JOBS = """
SELECT jobs.seq, target, client, id, state, priority, attempt, crashes, cancel_requested, accepted_at,
       finished_at, delivery, length(CAST(request AS BLOB)), length(outcome), outcome, request, address
FROM jobs LEFT JOIN requests ON requests.seq = jobs.seq LEFT JOIN outcomes ON outcomes.seq = jobs.seq
WHERE jobs.seq > ? AND (finished_at IS NOT NULL OR NOT ?) ORDER BY jobs.seq LIMIT ?
"""

_FIGURES = ("model", "finish_reason", "usage", "timing", "truncated")
# The members of an outcome that hold neither the prompt nor the answer.


def export_jobs(
    connection: sqlite3.Connection, *, finished: bool = False, contents: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the jobs in order of acceptance, each as it is when its page is read.

    Args:
        connection: From `reader`, outside of a transaction.
        finished: Only those that have their outcome.
        contents: Also the prompt, the answer and the address with what the sender wants echoed.
    """
    last = 0
    while True:
        clock = load_checkpoint(connection)
        true_s = (
            None if clock is None or clock.wall_s < EARLIEST_TRUE_WALL_S else clock.wall_s - clock.journal_s
        )
        rows = connection.execute(_JOBS, (last, finished, _PAGE)).fetchall()
        for row in rows:
            yield _told(row, true_s, contents=contents)
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]


def _told(row: tuple[Any, ...], journal_began_s: float | None, *, contents: bool) -> dict[str, Any]:
    """Return the members of one line; `journal_began_s` is the Unix time at which its clock stood at 0."""
    finished_at, outcome, request, address = row[10], row[14], row[15], row[16]
    final = _parsed(outcome)
    members = {
        "seq": row[0],
        "target": row[1],
        "client": row[2],
        "id": row[3],
        "state": row[4],
        "priority": row[5],
        "attempt": row[6],
        "crashes": row[7],
        "cancel_requested": bool(row[8]),
        "accepted_at": row[9],
        "finished_at": None
        if finished_at is None or journal_began_s is None
        else round(journal_began_s + finished_at, 3),
        "delivery": row[11],
        "request_bytes": row[12],
        "outcome_bytes": row[13],
    }
    if isinstance(final, dict):
        members |= {name: final[name] for name in _FIGURES if name in final}
        error = final.get("error")
        members["error_code"] = error.get("code") if isinstance(error, dict) else None
    if contents:
        members |= {"request": _parsed(request), "outcome": final, "address": _parsed(address)}
    return members


def _parsed(text: str | bytes | None) -> Any:
    """Return the value of stored JSON; what is none is told as bytes in base64, so that nothing is hidden."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raw = text if isinstance(text, bytes) else text.encode()
        return {"base64": base64.b64encode(raw).decode("ascii")}
