"""Conversations that the daemon keeps: a job gets its history when its turn has come, and adds a turn.

Rule 1: one turn at a time: the next one sees what the one before it has added.
Rule 2: only a turn that succeeded is kept, and it is stored together with its outcome.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.store.conversations import ConversationKey, ConversationTurn
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_RETRY_S = 1.0
_SHOWN = 100


def key_of(job: Job) -> ConversationKey:
    """Return the conversation of a job that is a turn of one."""
    target, client, _ = job.key
    return ConversationKey(target, client, job.request.conversation or "")


def turn_of(job: Job, text: str, tool_calls: Sequence[Mapping[str, Any]]) -> ConversationTurn | None:
    """Return what a successful job adds to its conversation; None when it is no turn of one.

    System prompts are not part of it: each request brings its own, or has that of its client.
    """
    if job.request.conversation is None:
        return None
    asked = [message for message in job.request.messages if message["role"] != "system"]
    answer: dict[str, Any] = {"role": "assistant", "content": text}
    if tool_calls:
        answer["tool_calls"] = list(tool_calls)
    return ConversationTurn(key_of(job), [*asked, answer])


class Conversations:
    """Reads the history of each job whose turn has come."""

    def __init__(
        self, live: LiveJobs, journal: Journal, targets: Sequence[str], released: Callable[[Job], None]
    ) -> None:
        """Begin to serve `live`.

        Args:
            live: Unfinished jobs.
            journal: Open.
            targets: The node and its groups.
            released: Takes a job that waits for the slot now.
        """
        self._live = live
        self._journal = journal
        self._targets = targets
        self._released = released
        self._reading: set[asyncio.Task[None]] = set()
        live.read_history = self._begin

    async def shown(self) -> list[dict[str, Any]]:
        """Return the conversations used last, for an administrator: nothing of their content.

        Raises:
            StoreError: The journal cannot be read.
        """
        now = self._journal.now()
        return [
            {
                "client": row.key.client,
                "id": row.key.id,
                "turns": row.turns,
                "bytes": row.bytes,
                "unused_s": round(now - row.used_at),
            }
            for row in await self._journal.conversations(_SHOWN)
        ]

    async def forget(self, client: str, conversation_id: str) -> bool:
        """Remove a conversation; return whether there was one.

        Raises:
            StoreError: The journal cannot be written.
        """
        keys = [ConversationKey(target, client, conversation_id) for target in self._targets]
        return any([await self._journal.forget_conversation(key) for key in keys])

    def _begin(self, job: Job) -> None:
        reading = asyncio.get_running_loop().create_task(self._read(job), name=f"history-{job.seq}")
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def _read(self, job: Job) -> None:
        while self._live.is_held(job):
            try:
                job.history = tuple(await self._journal.history(key_of(job)))
            except StoreError as exc:
                log.error("history_not_read", job=job.seq, reason=str(exc), hint=exc.hint)
                await asyncio.sleep(_RETRY_S)
                continue
            if self._live.release(job):
                self._released(job)
            return
