"""Requests on their way in: parse, store, acknowledge, tell the sender; cancels go through `cancels`.

Rule 1: commit before PUBACK, PUBACK before `accepted`: what we confirm survives a power cut.
Rule 2: a rejection is handed to the socket before its request's PUBACK: else a crash would lose both.
Rule 3: nothing a sender writes raises beyond this file.
"""

import asyncio
import hashlib
import time
import uuid
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.errors import Code, Fault, RequestError
from rkllm_mqtt.core.job import JobRecord
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.topics import ClientTopic, Topics, Verb
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.intake.backlog import Backlog
from rkllm_mqtt.intake.cancels import Cancels
from rkllm_mqtt.intake.neighbours import Neighbours
from rkllm_mqtt.intake.parsing import Parsed, RequestParser
from rkllm_mqtt.intake.quota import Quota
from rkllm_mqtt.intake.rejections import Rejections, peek_id
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Inbound
from rkllm_mqtt.store.admission import Admission, NewJob, Receipt
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_REPEAT_EVENTS = 1_000_000_000
"""What is said of a finished job has an `n` above all of its life, and rises each millisecond."""
_ECHO_BYTES = 1024
"""CorrelationData and `x-` user properties together: they are stored and sent with every answer."""


class _Question(Struct, frozen=True):
    """A request that the journal was asked to store."""

    job: Job
    """What it becomes once it is stored, and has the journal's number."""
    sha256: bytes
    """Of the payload."""
    request_id: str | None
    """Of the sender; None where the id is ours."""
    fault: Fault | None
    """Why it is not to be stored unless it is known already."""
    answer: "asyncio.Future[Admission]"
    early: "asyncio.Future[bool] | None"
    """The slot computes it already, and is to be told whether it is on disk."""


class Reception:
    """Takes every message on a client's topics."""

    def __init__(
        self,
        config: Config,
        topics: Topics,
        parser: RequestParser,
        live: LiveJobs,
        counters: Counters,
        journal: Journal,
        rejections: Rejections,
        neighbours: Neighbours,
    ) -> None:
        self._config = config
        self._topics = topics
        self._parser = parser
        self._live = live
        self._counters = counters
        self._journal = journal
        self._rejections = rejections
        self._neighbours = neighbours
        self._quota = Quota(
            config.limits,
            parser.settings,
            live,
            counters,
            neighbours.send,
            node=config.node,
            frees_in_s=neighbours.frees_in_s,
            now=time.monotonic,
        )
        self._cancels = Cancels(
            config.node,
            live,
            journal,
            self._quota,
            rejections,
            cancel=neighbours.cancel,
            resend=neighbours.resend,
            unknown=neighbours.cancel_unknown,
        )
        self._backlog = Backlog(neighbours.ack)
        self.closed = False
        """The daemon is stopping: what comes now stays with the broker and is answered after the restart."""

    def apply(self, config: Config) -> None:
        """Take over a changed configuration; the parser has taken it over before."""
        self._config = config
        self._quota.apply(config.limits)

    @property
    def backlog(self) -> int:
        """Return how many messages are between their receipt and their acknowledgement."""
        return len(self._backlog)

    @property
    def backlog_bytes(self) -> int:
        """Return the payloads of these messages together."""
        return self._backlog.bytes

    def take(self, message: Inbound, where: ClientTopic) -> None:
        """Take a message; it is acknowledged when nothing of it can be lost any more."""
        if message.retain:
            # Stored by the broker, perhaps years ago: running it at each start would be a ghost.
            self._counters.ignored_retained += 1
            self._neighbours.ack(message)
        elif self.closed:
            if not message.qos and message.payload:  # the broker has not kept it
                fault = Fault(Code.SHUTTING_DOWN, "the daemon is stopping", "Send it again later.", 30)
                address = Address(where.mailbox, where.id)
                text = self._parser.is_text(message.payload, message.content_type, where.mailbox.client)
                self._rejections.reject(address, fault, request_id=where.id, text=text)
        elif where.verb is Verb.REQUEST:
            self._take_request(message, where)
        else:
            self._backlog.start(self._cancels.take(message, where), message)

    async def drained(self) -> None:
        """Wait until every message taken so far is acknowledged."""
        await self._backlog.drained()

    async def enter(self, message: Inbound, where: ClientTopic, bare: bool) -> Fault | None:
        """Take a request of the daemon itself, as any client's; return why it was refused.

        Args:
            message: At QoS 0, JSON.
            where: Its topic, with an id.
            bare: Answer with bare text.
        """
        if self.closed:
            return Fault(Code.SHUTTING_DOWN, "the daemon is stopping", "Send it again later.", 30)
        try:
            address = self._redirected(Address(where.mailbox, where.id), message.response_topic)
            parsed = self._parser.parse(
                message.payload,
                text=False,
                client=where.mailbox.client,
                capabilities=self._neighbours.capabilities(),
            )
        except RequestError as exc:
            return exc.fault
        if bare:
            parsed = replace(parsed, request=replace(parsed.request, text=True))
        fault = self._quota.fault(where.mailbox.client, known=False)
        fault = fault or self._neighbours.refusal(parsed.request.model)
        if fault is None:
            asked = self._ask(message, address, parsed, None)
            await asyncio.shield(self._backlog.start(self._admit(message, address, parsed, asked), message))
            if not asked.answer.done() or asked.answer.cancelled() or asked.answer.exception() is not None:
                fault = Fault(Code.INTERNAL, "the request cannot be stored", retry_after_s=30)
        return fault

    # requests

    def _take_request(self, message: Inbound, where: ClientTopic) -> None:
        if not message.payload:
            self._neighbours.ack(message)
            return
        mailbox, client = where.mailbox, where.mailbox.client
        known = where.id is not None and self._live.find(mailbox.target, client, where.id) is not None
        fault = self._quota.fault(client, known=known)
        if fault is not None and not self._quota.may_tell(mailbox):
            self._neighbours.ack(message)  # unread: whatever it is, its sender has been told to slow down
            return
        text = self._parser.is_text(message.payload, message.content_type, client)
        address = Address(mailbox, where.id)
        try:
            if message.correlation_data is not None or message.user_properties:
                address = replace(address, **_echoes(message))
            if where.problem:
                hint = "Use 1 to 64 of A-Z a-z 0-9 . _ : - as the last level, not `event` or `delta`."
                raise RequestError(Code.INVALID_REQUEST, where.problem, hint)
            address = self._redirected(address, message.response_topic)
            if fault is not None and self._is_new(message, address, text):
                self._reject(message, address, fault, text)
                return
            parsed = self._parser.parse(
                message.payload, text=text, client=client, capabilities=self._neighbours.capabilities()
            )
        except RequestError as exc:
            self._reject(message, address, exc.fault, text)
            return
        if fault is None:
            request, fault = self._neighbours.prepare(client, parsed.request)
            parsed = replace(parsed, request=request)
            fault = fault or self._neighbours.refusal(parsed.request.model)
            # Only what may be known is still worth a question.
            if fault is not None and not (known or self._quota.may_tell(mailbox)):
                self._neighbours.ack(message)
                return
        self._backlog.start(
            self._admit(message, address, parsed, self._ask(message, address, parsed, fault)), message
        )

    def _reject(self, message: Inbound, address: Address, fault: Fault, text: bool) -> None:
        request_id = address.topic_id
        if request_id is None and not text and fault.code is not Code.TOO_LARGE:
            request_id = peek_id(message.payload)
        self._rejections.reject(address, fault, request_id=request_id, text=text)
        self._neighbours.ack(message)

    def _is_new(self, message: Inbound, address: Address, text: bool) -> bool:
        """Return whether a request is surely none that we have: to refuse it then costs no question."""
        request_id = address.topic_id
        if request_id is None and not text:
            if len(message.payload) > self._config.limits.request_bytes:
                return False  # too large to look into it; the parser says so
            request_id = peek_id(message.payload)
        if request_id is None:
            return not message.dup
        key = address.mailbox.target, address.mailbox.client, request_id
        return not (self._live.find(*key) or self._quota.is_entering(key) or self._journal.may_know(*key))

    def _redirected(self, address: Address, asked: str | None) -> Address:
        """Return the address with the response topic that was asked for.

        Raises:
            RequestError: The topic is not the sender's own.
        """
        if asked is None:
            return address
        if not self._topics.may_answer_on(asked, address.mailbox):
            prefix = address.mailbox.prefix
            raise RequestError(
                Code.REPLY_TOPIC_DENIED,
                "answers are not sent to this response topic",
                f"Use a topic under {prefix}/, such as {prefix}/reply.",
            )
        return replace(address, response_topic=asked)

    def _ask(self, message: Inbound, address: Address, parsed: Parsed, fault: Fault | None) -> _Question:
        """Ask the journal at once, in the order in which the messages came."""
        now, sha256 = self._journal.now(), hashlib.sha256(message.payload).digest()
        request_id = address.topic_id or parsed.id
        # 0 is a life that ended under way, not one without end.
        expiry_s = parsed.ttl_s if message.message_expiry_s is None else message.message_expiry_s
        job = Job(
            seq=0,
            id=request_id or uuid.uuid4().hex,
            request=parsed.request,
            address=address,
            priority=parsed.priority,
            accepted_at=time.time(),
            queued_at=now,
            deadline=now + min(parsed.ttl_s, expiry_s),
        )
        receipt = None
        if request_id is None and message.qos:
            receipt = Receipt(message.session, message.mid, message.topic, sha256, message.dup)
        fault = fault or self._neighbours.too_late(job)
        early = None
        # A finished request never runs again: one that may be known waits for the journal's word, and so does
        # one behind others, which may be the same.
        if fault is None and not (self._backlog or message.dup or self._journal.may_know(*job.key)):
            early = self._neighbours.begin_early(job)
        new = NewJob(
            target=address.mailbox.target,
            client=job.client,
            id=job.id,
            sha256=sha256,
            priority=job.priority,
            accepted_at=job.accepted_at,
            deadline=job.deadline,
            request=parsed.request.to_json(),
            address=address.to_json(),
        )
        answer = self._journal.admit(new, may_insert=fault is None, receipt=receipt)
        if fault is None:  # what is on its way to the disk has its place in the queue already
            self._quota.entering(job.key)
            answer.add_done_callback(lambda _: self._quota.entered(job.key))
        return _Question(job, sha256, request_id, fault, answer, early)

    async def _admit(self, message: Inbound, address: Address, parsed: Parsed, asked: _Question) -> None:
        try:
            await self._take_in(message, address, parsed, asked)
        finally:
            if asked.early is not None and not asked.early.done():
                asked.early.set_result(False)

    async def _take_in(self, message: Inbound, address: Address, parsed: Parsed, asked: _Question) -> None:
        fault, request_id, text = asked.fault, asked.request_id, parsed.request.text
        if asked.answer.done():
            # Answered before this task began: those before it are only about to go on, and one of them may be
            # the same request, which must not be told as known before it is there.
            await asyncio.sleep(0)
        try:
            admission = await asked.answer
        except StoreError as exc:
            fault = Fault(Code.INTERNAL, f"the request cannot be stored: {exc}", exc.hint, 30)
            self._rejections.reject(address, fault, request_id=request_id, text=text)
            self._neighbours.ack(message)
            return
        known = admission.known
        if known is None or (not admission.fresh and known.sha256 != asked.sha256):
            if known is not None:
                hint = "Use a new id for another request; a resend must have the same bytes."
                fault = Fault(Code.ID_CONFLICT, "this id belongs to another request", hint)
            if fault is not None:
                self._rejections.reject(address, fault, request_id=request_id, text=text)
            self._neighbours.ack(message)
        elif admission.fresh:
            self._queue(message, parsed, known.seq, asked)
        else:
            await self._repeat(message, address, parsed, known)

    def _queue(self, message: Inbound, parsed: Parsed, seq: int, asked: _Question) -> None:
        job = asked.job
        job.seq = seq
        self._live.add(job)
        if asked.early is not None:
            self._live.take(job)
            asked.early.set_result(True)
        self._counters.accepted += 1
        self._neighbours.queued(job)  # first: an idle slot begins while we tell the sender
        self._neighbours.ack(message)
        self._neighbours.accepted(job, False, parsed.ignored)
        log.debug("job_accepted", job=job.seq, client=job.client, payload_bytes=len(message.payload))

    async def _repeat(self, message: Inbound, address: Address, parsed: Parsed, record: JobRecord) -> None:
        """A request that we have already: tell the sender so, and the outcome again if there is one."""
        if message.dup:
            self._counters.redelivered += 1
        job = self._live.find(record.target, record.client, record.id)
        if job is not None and record.outcome is None and await self._readdress(job, address):
            self._neighbours.ack(message)
            self._neighbours.accepted(job, True, parsed.ignored)
            return
        finished = Job(
            seq=record.seq,
            id=record.id,
            request=parsed.request,
            address=address,
            priority=record.priority,
            accepted_at=record.accepted_at,
            queued_at=0,
            deadline=0,
            events=_REPEAT_EVENTS + max(0, int((time.time() - record.accepted_at) * 1000)),
        )
        self._neighbours.ack(message)
        self._neighbours.accepted(finished, True, parsed.ignored)
        if record.outcome is None:  # it ended while we asked the journal
            record = await self._journal.record(record.seq)
        self._neighbours.resend(record, address)

    async def _readdress(self, job: Job, address: Address) -> bool:
        """Let the answers of a job go where it was asked for last; False when it has ended meanwhile."""
        if job.address == address:
            return True
        unfinished = await self._journal.readdress(job.seq, address.to_json())
        if unfinished:
            job.address = address
        return unfinished


def _echoes(message: Inbound) -> dict[str, Any]:
    """Return what every answer repeats: correlation data and the user properties that begin with x-.

    Raises:
        RequestError: It is more than is kept for a sender.
    """
    properties = tuple((name, value) for name, value in message.user_properties if name.startswith("x-"))
    size = len(message.correlation_data or b"") + sum(
        len(k.encode()) + len(v.encode()) for k, v in properties
    )
    if size > _ECHO_BYTES:
        raise RequestError(
            Code.TOO_LARGE,
            f"correlation data and x- user properties have {size} bytes, the limit is {_ECHO_BYTES}",
            "Keep what belongs to the request yourself, under its id.",
        )
    return {"correlation_data": message.correlation_data, "user_properties": properties}
