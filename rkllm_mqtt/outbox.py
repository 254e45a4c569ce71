"""Bring stored outcomes to the broker: each until its PUBACK, through crashes and reconnects.

Rule 1: an outcome leaves the outbox only when the broker has acknowledged or refused it.
Rule 2: while the broker is away outcomes wait on disk, not in memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from msgspec.structs import replace

from rkllm_mqtt.answer import outbound
from rkllm_mqtt.core.answers import bare_text, without_answer
from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import Delivery, JobRecord
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_IN_FLIGHT = 200
"""Outcomes handed to the session at once; the others wait on disk."""
_RETRY_S = 2.0
_TOO_LARGE = Fault(
    Code.TOO_LARGE,
    "the broker takes no message as large as this answer",
    "Ask for a shorter one with `max_tokens` or `reply_bytes`, or raise the broker's limit.",
)

Publish = Callable[[Outbound], "asyncio.Future[PublishOutcome]"]


class Outbox:
    """Delivers outcomes at least once, with the same bytes each time."""

    def __init__(
        self,
        journal: Journal,
        publish: Publish,
        connected: Callable[[], bool],
        keep_last: Callable[[Address, bytes], None],
        retained: Collection[str] = (),
    ) -> None:
        """Keep the arguments.

        Args:
            journal: Open.
            publish: Of the session.
            connected: Whether the session is.
            keep_last: Takes an outcome that its sender wants retained too.
            retained: Response topics on which outcomes are retained.
        """
        self._journal = journal
        self._publish = publish
        self._connected = connected
        self._keep_last = keep_last
        self._retained = frozenset(retained)
        self._backlog: deque[int] = deque()
        self._in_flight = 0
        self._repeats = 0
        """Outcomes that are published again though the broker had them, and not acknowledged."""
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()
        self.refused: str | None = None
        """Why the broker refused the newest outcome; None when it took it."""

    @property
    def pending(self) -> int:
        """Return how many outcomes the broker has not acknowledged."""
        return len(self._backlog) + self._in_flight

    def recover(self, seqs: list[int]) -> None:
        """Take the outcomes that an earlier process could not deliver."""
        self._backlog.extend(seqs)
        self._wake.set()

    def connected(self) -> None:
        """The broker is there again."""
        self._wake.set()

    def post(self, job: Job, outcome: bytes) -> None:
        """Deliver an outcome that was stored just now."""
        request = job.request
        if request.retain:
            self._keep_last(job.address, outcome)
        if not request.reply_qos:
            self._publish(self._message(job.address, request, outcome))
        elif self._connected() and self._in_flight < _IN_FLIGHT:
            self._hand_over(job.seq, job.address, request, outcome)
        else:
            self._backlog.append(job.seq)
            self._wake.set()

    def again(self, record: JobRecord, address: Address) -> None:
        """Publish a stored outcome once more, to the address that was asked for now."""
        if record.outcome is None or self._in_flight + self._repeats >= _IN_FLIGHT:
            return  # the broker is slow already: what is pending waits on disk, other senders ask once more
        request = ChatRequest.from_json(record.request)
        if record.delivery is Delivery.PENDING and record.seq in self._backlog:
            self._backlog.remove(record.seq)
        if request.reply_qos and record.delivery is not Delivery.DONE:
            self._hand_over(record.seq, address, request, record.outcome)
        else:
            self._repeats += 1
            published = self._publish(self._message(address, request, record.outcome))
            published.add_done_callback(self._repeated)

    def _repeated(self, _published: "asyncio.Future[PublishOutcome]") -> None:
        self._repeats -= 1

    async def drained(self) -> None:
        """Wait until the broker has answered for everything that was handed to the session."""
        while self._tasks and self._connected():
            await asyncio.wait(set(self._tasks))

    async def run(self) -> None:
        """Feed what waits on disk to the session; cancelled by the daemon's task group."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._backlog and self._connected() and self._in_flight < _IN_FLIGHT:
                seq = self._backlog.popleft()
                self._in_flight += 1
                try:
                    record = await self._journal.record(seq)
                except StoreError as exc:
                    log.error("outbox_read_failed", job=seq, reason=str(exc))
                    self._backlog.append(seq)
                    await asyncio.sleep(_RETRY_S)
                    continue
                finally:
                    self._in_flight -= 1
                if record.outcome is not None:
                    request = ChatRequest.from_json(record.request)
                    address = Address.from_json(record.address, record.target, record.client)
                    if request.retain:
                        self._keep_last(address, record.outcome)
                    self._hand_over(seq, address, request, record.outcome)

    def _hand_over(self, seq: int, address: Address, request: ChatRequest, outcome: bytes) -> None:
        self._in_flight += 1
        published = self._publish(self._message(address, request, outcome))
        task = asyncio.ensure_future(self._deliver(seq, address, request, outcome, published))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(
        self,
        seq: int,
        address: Address,
        request: ChatRequest,
        outcome: bytes,
        published: "asyncio.Future[PublishOutcome]",
    ) -> None:
        try:
            result = await published
            if result is PublishOutcome.TOO_LARGE:
                # Another broker than the one it was cut for: its sender waits for an end all the same.
                result = await self._publish(
                    self._message(address, request, without_answer(outcome, _TOO_LARGE))
                )
        finally:
            self._in_flight -= 1
            self._wake.set()
        if result is PublishOutcome.RETRY:
            # Over quota, or the daemon is ending: it stays in the outbox.
            await asyncio.sleep(_RETRY_S)
            self._backlog.append(seq)
            self._wake.set()
            return
        delivery, self.refused = Delivery.DONE, None
        if result is not PublishOutcome.DELIVERED:
            delivery = Delivery.REFUSED
            self.refused = result.value
            log.error("outcome_refused", job=seq, reason=result.value)
        try:
            await self._journal.delivered(seq, delivery)
        except StoreError as exc:
            log.warning("delivery_not_noted", job=seq, reason=str(exc))  # it is published again at a restart

    def _message(self, address: Address, request: ChatRequest, outcome: bytes) -> Outbound:
        payload, content_type = outcome, "application/json"
        if request.text:
            payload, content_type = bare_text(outcome), "text/plain"
        message = outbound(address, address.reply, payload, qos=request.reply_qos, content_type=content_type)
        return replace(message, retain=True) if message.topic in self._retained else message
