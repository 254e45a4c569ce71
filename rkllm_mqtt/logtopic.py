"""Publish warnings and errors on the topic `log`: event names and facts, never content."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.logs import facts_of
from rkllm_mqtt.mqtt.messages import Outbound

_PER_SECOND = 20
"""A storm of warnings must not become a storm of messages."""


class LogTopic(logging.Handler):
    """A logging handler that publishes."""

    def __init__(self, topic: str, send: Callable[[Outbound], bool]) -> None:
        super().__init__(logging.WARNING)
        self._topic = topic
        self._send = send
        self._loop: asyncio.AbstractEventLoop | None = None
        self._second = 0
        self._sent = 0

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to publish."""
        self._loop = loop
        logging.getLogger("rkllm_mqtt").addHandler(self)

    def remove(self) -> None:
        """Stop publishing."""
        logging.getLogger("rkllm_mqtt").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Publish a record; from any thread."""
        if self._loop is None:
            return
        facts = {key: _fact(value) for key, value in facts_of(record).items()}
        payload = encode(
            {
                "at": int(record.created),
                "level": record.levelname.lower(),
                "event": record.getMessage(),
                **facts,
            }
        )
        with contextlib.suppress(RuntimeError):  # the loop is closed, perhaps a moment ago
            self._loop.call_soon_threadsafe(self._publish, payload)

    def _publish(self, payload: bytes) -> None:
        now = int(time.monotonic())
        if now != self._second:
            self._second, self._sent = now, 0
        self._sent += 1
        if self._sent <= _PER_SECOND:
            self._send(Outbound(self._topic, payload))


def _fact(value: object) -> object:
    """Return a fact as JSON and UTF-8 can carry it: a log call must not raise."""
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value).encode("utf-8", "replace").decode("utf-8")
