"""Messages between their receipt and their acknowledgement: a task each, and how much they hold in memory."""

import asyncio
from collections.abc import Awaitable, Callable

from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Inbound
from rkllm_mqtt.store.errors import StoreError

log = get_logger(__name__)


class Backlog:
    """Works on messages side by side; each is acknowledged in the end, whatever happens."""

    def __init__(self, ack: Callable[[Inbound], None]) -> None:
        self._ack = ack
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.bytes = 0
        """The payloads together."""

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Awaitable[None], message: Inbound) -> asyncio.Task[None]:
        """Begin, and return the task, which ends when the message is acknowledged; nobody cancels it."""
        task = asyncio.ensure_future(self._guarded(work, message))
        self._tasks.add(task)
        self.bytes += len(message.payload)
        self._idle.clear()
        task.add_done_callback(lambda task: self._done(task, len(message.payload)))
        return task

    async def drained(self) -> None:
        """Wait until there is none."""
        await self._idle.wait()

    def _done(self, task: asyncio.Task[None], payload_bytes: int) -> None:
        self._tasks.discard(task)
        self.bytes -= payload_bytes
        if not self._tasks:
            self._idle.set()

    async def _guarded(self, work: Awaitable[None], message: Inbound) -> None:
        """Outermost line of a message's task: a bug of ours must not stop the intake, nor block the acks."""
        try:
            await work
        except StoreError as exc:
            log.error("intake_store_failed", reason=str(exc), hint=exc.hint)
        except Exception:
            log.exception("intake_failed", topic_levels=message.topic.count("/"))
        finally:
            self._ack(message)
