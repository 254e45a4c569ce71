"""Jobs as the intake makes them, and journals to keep them in."""

import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.mqtt.messages import Outbound
from rkllm_mqtt.store.admission import NewJob
from rkllm_mqtt.store.journal import Journal

_numbers = itertools.count(1)


def request(prompt: str = "say: hello", **fields: Any) -> ChatRequest:
    """Return a streaming JSON request."""
    messages = ({"role": "user", "content": prompt},)
    return ChatRequest(**{"messages": messages, "model": "plain", "max_tokens": 100, "stream": True} | fields)


def address(client: str = "app", request_id: str | None = "q1", **fields: Any) -> Address:
    """Return the mailbox of a client on the node `rock`."""
    return Address(Mailbox("rkllm", "rock", client), request_id, **fields)


def make_job(asked: ChatRequest | None = None, where: Address | None = None, **fields: Any) -> Job:
    """Return a job that is in no journal."""
    number = next(_numbers)
    defaults = {
        "seq": number,
        "id": (where and where.topic_id) or f"q{number}",
        "request": asked or request(),
        "address": where or address(request_id=f"q{number}"),
        "priority": Priority.NORMAL,
        "accepted_at": time.time(),
        "queued_at": 0.0,
        "deadline": float("inf"),
    }
    return Job(**defaults | fields)


async def admit(journal: Journal, job: Job) -> Job:
    """Store a job; it takes the number that the journal gives it."""
    new = NewJob(
        target=job.address.mailbox.target,
        client=job.client,
        id=job.id,
        sha256=hashlib.sha256(job.id.encode()).digest(),
        priority=job.priority,
        accepted_at=job.accepted_at,
        deadline=None if job.deadline == float("inf") else job.deadline,
        request=job.request.to_json(),
        address=job.address.to_json(),
    )
    admission = await journal.admit(new, may_insert=True, receipt=None)
    assert admission.known is not None
    job.seq, job.queued_at = admission.known.seq, journal.now()
    return job


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Journal]:
    """Open a journal in a folder and close it."""
    journal = await Journal.open(folder / "journal.db", **{"ballast_mb": 0} | options)
    try:
        yield journal
    finally:
        await journal.close()


class Sent(list[Outbound]):
    """Takes messages as the session does; `up` says whether the broker is there."""

    up = True

    def __call__(self, message: Outbound) -> bool:
        if self.up:
            self.append(message)
        return self.up

    def of(self, kind: str) -> list[Any]:
        """Return the JSON payloads on the topics of a kind: event, delta, reply, last."""
        return [json.loads(message.payload) for message in self if f"/{kind}" in message.topic]

    def events(self, kind: str) -> list[Any]:
        """Return the events of a type."""
        return [event for event in self.of("event") if event["type"] == kind]
