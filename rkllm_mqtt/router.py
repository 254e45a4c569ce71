"""Bring each message to the part that it is for; hold the broker back when they come too fast."""

import asyncio
from collections.abc import Callable

from rkllm_mqtt.admin import Admin
from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.core.live import Counters
from rkllm_mqtt.core.topics import AdminTopic, ClientTopic, HomeAssistantStatus, OwnStatus, Topics
from rkllm_mqtt.intake.reception import Reception
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Inbound
from rkllm_mqtt.mqtt.session import Session
from rkllm_mqtt.recurring.values import Values
from rkllm_mqtt.reporter import Reporter

log = get_logger(__name__)

_HIGH_BACKLOG = 2_000
"""Messages between receipt and commit beyond which no more are read from the broker."""
_HIGH_BYTES = 8 * 1024 * 1024
"""The same for their payloads together: 2,000 of the largest would be half a gigabyte."""
_WARN_S = 1.0
"""A storm of topics that are none must not become a storm of lines in the log."""

_ECHO_S = 10.0
"""So long after our own `online` another one on our topic is its echo."""
_NAMESAKE = Reason(
    "node_taken",
    "another daemon is online under this node's name: prompts are answered twice",
    "Give each daemon a `node` of its own.",
)


class Router:
    """Takes every message that the session delivers."""

    def __init__(
        self,
        topics: Topics,
        session: Session,
        reception: Reception,
        admin: Admin,
        counters: Counters,
        stopping: Callable[[], bool],
        home_assistant_started: Callable[[], None],
        values: Values,
        reporter: Reporter,
    ) -> None:
        """Keep the arguments.

        Args:
            topics: Of this daemon.
            session: Acknowledges what ends here.
            reception: Takes requests and cancels.
            admin: Takes admin commands.
            counters: Totals.
            stopping: Whether we are about to be offline ourselves.
            home_assistant_started: Called when it says that it is there.
            values: Topics whose messages schedules use.
            reporter: Says that we are online.
        """
        self._topics = topics
        self._session = session
        self._reception = reception
        self._admin = admin
        self._counters = counters
        self._stopping = stopping
        self._home_assistant_started = home_assistant_started
        self._values = values
        self._reporter = reporter
        self._has_namesake = False
        self._work: set[asyncio.Task[None]] = set()
        self._held_back: asyncio.Task[None] | None = None
        self._warned_at = float("-inf")

    def take(self, message: Inbound) -> None:
        """Route one message."""
        if self._values.take(message):
            self._session.ack(message)
            return
        match self._topics.parse(message.topic):
            case ClientTopic() as where:
                self._reception.take(message, where)
                if self._held_back is None and self._is_high():
                    self._session.pause_reading()
                    self._held_back = asyncio.create_task(self._read_again(), name="read-again")
            case AdminTopic(command):
                self._session.ack(message)
                if message.payload and not message.retain:
                    task = asyncio.create_task(self._admin.take(command, message.payload), name="admin")
                    self._work.add(task)
                    task.add_done_callback(self._work.discard)
            case OwnStatus():
                self._session.ack(message)
                if not self._stopping():
                    self._take_status(message)
            case HomeAssistantStatus():
                self._session.ack(message)
                if message.payload == b"online":
                    self._home_assistant_started()
            case None:
                self._counters.invalid_topics += 1
                self._warn_of(message.topic)
                self._session.ack(message)

    @property
    def reasons(self) -> list[Reason]:
        """Return what of the messages tells that something is wrong, for `health`."""
        return [_NAMESAKE] if self._has_namesake else []

    def _take_status(self, message: Inbound) -> None:
        """Take what was published on our own `status`, by ourselves, an old will, or another daemon."""
        if message.payload == b"offline":
            self._has_namesake = False
            self._reporter.tell_online()
        elif message.payload == b"online" and _now() - self._reporter.online_at > _ECHO_S:
            if not self._has_namesake:
                log.error("node_taken", hint=_NAMESAKE.hint)
            self._has_namesake = True

    def _is_high(self) -> bool:
        return self._reception.backlog > _HIGH_BACKLOG or self._reception.backlog_bytes > _HIGH_BYTES

    def _warn_of(self, topic: str) -> None:
        now = _now()
        if now - self._warned_at >= _WARN_S:
            self._warned_at = now
            total = self._counters.invalid_topics
            log.warning("invalid_topic", levels=topic.count("/") + 1, bytes=len(topic), total=total)

    async def _read_again(self) -> None:
        await self._reception.drained()
        self._held_back = None
        self._session.resume_reading()


def _now() -> float:
    return asyncio.get_running_loop().time()
