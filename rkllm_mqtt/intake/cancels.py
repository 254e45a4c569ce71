"""Cancels on their way in: find the job, end it, tell the sender when there is none.

Rule 1: a cancel that finds its job always counts, however much its client has asked.
Rule 2: one that finds none is paid for like a request: it costs a look into the journal.
"""

import asyncio
from collections.abc import Awaitable, Callable

from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.errors import Code, RequestError
from rkllm_mqtt.core.job import JobRecord
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.topics import ClientTopic
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.intake.parsing import parse_cancel
from rkllm_mqtt.intake.quota import Quota
from rkllm_mqtt.intake.rejections import Rejections
from rkllm_mqtt.mqtt.messages import Inbound
from rkllm_mqtt.store.journal import Journal

_LONGEST_BYTES = 1_024
"""Of a payload that names an id: 64 characters, and what JSON and escapes put around them."""


class Cancels:
    """Takes every message on a client's cancel topics."""

    def __init__(
        self,
        node: str,
        live: LiveJobs,
        journal: Journal,
        quota: Quota,
        rejections: Rejections,
        *,
        cancel: Callable[[Job], Awaitable[None]],
        resend: Callable[[JobRecord, Address], None],
        unknown: Callable[[Address, str], None],
    ) -> None:
        """Keep the arguments.

        Args:
            node: Of a group, another member may hold the job: only the node's own target is told `unknown`.
            live: The unfinished jobs.
            journal: Open.
            quota: What the client may still ask.
            rejections: Tells what cannot be read.
            cancel: Ends an unfinished job; returns when that wish is on disk.
            resend: Publishes a stored outcome again.
            unknown: Says that there is no request of an id.
        """
        self._node = node
        self._live = live
        self._journal = journal
        self._quota = quota
        self._rejections = rejections
        self._cancel = cancel
        self._resend = resend
        self._unknown = unknown

    async def take(self, message: Inbound, where: ClientTopic) -> None:
        """Take a message; when this returns, it may be acknowledged."""
        mailbox = where.mailbox
        address = Address(mailbox, where.id)
        if not message.payload and where.id is None and not where.problem:
            return  # clearing a retained topic sends just that
        try:
            wanted = _wanted(message, where)
        except RequestError as exc:
            # `reply` is for outcomes, which a bad payload of a cancel is not; a bad topic is told there too.
            if self._paid(where):
                self._rejections.reject(
                    address, exc.fault, request_id=None, text=False, outcome=bool(where.problem)
                )
            return
        if wanted is None:
            jobs = self._live.of_client(mailbox.target, mailbox.client)
            await asyncio.gather(*(self._cancel(job) for job in jobs))
        else:
            await self._cancel_one(address, wanted, where)

    async def _cancel_one(self, address: Address, wanted: str, where: ClientTopic) -> None:
        target, client = address.mailbox.target, address.mailbox.client
        key = target, client, wanted
        job = self._live.find(*key)
        finds = (job is not None and not job.cancel_requested) or self._quota.is_entering(key)
        if not finds and not self._paid(where):
            return
        if job is None:
            # Its request may be in the very batch that is being committed: this question waits behind it.
            record = await self._journal.find(target, client, wanted)
            if record is not None and record.outcome is not None:
                self._resend(record, Address.from_json(record.address, target, client))
                return
            job = self._live.find(target, client, wanted)
        if job is not None:
            await self._cancel(job)
        elif target == self._node:
            self._unknown(address, wanted)

    def _paid(self, where: ClientTopic) -> bool:
        return self._quota.spend(where.mailbox.client) or self._quota.may_tell(where.mailbox)


def _wanted(message: Inbound, where: ClientTopic) -> str | None:
    """Return the id that is to be cancelled; None means all.

    Raises:
        RequestError: The topic or the payload names none.
    """
    if where.problem:
        raise RequestError(Code.INVALID_REQUEST, where.problem, "Cancel with the id as the last level.")
    if where.id is None and len(message.payload) > _LONGEST_BYTES:
        raise RequestError(
            Code.TOO_LARGE,
            f"the cancel has {len(message.payload)} bytes, the limit is {_LONGEST_BYTES}",
            "Cancel with the id as the last level of the topic.",
        )
    return parse_cancel(message.payload, where.id)
