"""Say what the daemon is and does: the retained topics info, queue, health and stats.

Rule 1: `queue` follows a change within a second, also while a run goes on, and is never published more often.
Rule 2: `health` comes on change and every 30 s: its `at` is how a reader knows that we live. `stats` comes
every 30 s, and within a second of the end of a job.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.health import Reason, assess
from rkllm_mqtt.core.topics import Topics
from rkllm_mqtt.mqtt.messages import Outbound

_QUEUE_S = 0.99
"""Once a second, less its way to the broker: what stands there is never older than a second."""
_HEALTH_S = 30.0
_STATS_S = 30.0
_LOOK_S = 2.0
_PAUSE_S = 0.8
"""Least time between two looks at health and stats, however much happens."""


class Views(Struct, frozen=True):
    """Where the members of each topic come from; called at each publish."""

    info: Callable[[], Mapping[str, Any]]
    queue: Callable[[], Mapping[str, Any]]
    health: Callable[[], tuple[Mapping[str, Any], list[Reason]]]
    """Members without `at`, `status` and `reasons`; and the reasons."""
    stats: Callable[[], Mapping[str, Any]]
    finished: Callable[[], int]
    """How many jobs have ended or were refused: a change makes `stats` worth telling early."""


class Reporter:
    """Publishes the retained state."""

    def __init__(
        self,
        topics: Topics,
        views: Views,
        publish: Callable[[Outbound], object],
        connected: Callable[[], bool],
    ) -> None:
        self._topics = topics
        self._views = views
        self._publish = publish
        self._connected = connected
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._last_queue = b""
        self._told: tuple[object, ...] = ()
        self._health_at = 0.0
        self._stats_at = 0.0
        self._finished = 0
        self.online_at = float("-inf")
        """When `online` was published last; seconds of the event loop's clock."""

    def changed(self) -> None:
        """The queue or the slot has changed."""
        self._changed.set()
        self._news.set()

    def health(self) -> dict[str, Any]:
        """Return the members of `health` as they are now."""
        members, reasons = self._views.health()
        return {
            "at": int(time.time()),
            "boot_id": members.get("boot_id"),
            "status": assess(reasons),
            "reasons": [reason.members() for reason in reasons],
            **{key: value for key, value in members.items() if key != "boot_id"},
        }

    def announce(self) -> None:
        """Publish everything: the broker may have forgotten it. `status` comes last, when all is true."""
        self._retain("info", encode(self._views.info()))
        self._tell_queue(force=True)
        self._tell_health()
        self._tell_stats()
        self.tell_online()

    def tell_online(self) -> None:
        """Publish that we are here."""
        self.online_at = asyncio.get_running_loop().time()
        self._retain("status", b"online")

    def tell_info(self) -> None:
        """Publish `info` again: a model was loaded."""
        if self._connected():
            self._retain("info", encode(self._views.info()))

    def offline(self) -> Outbound:
        """Return the message that says we are gone: the will, and the farewell."""
        return Outbound(self._topics.state("status"), b"offline", qos=1, retain=True)

    async def run_queue(self) -> None:
        """Publish the queue on change; cancelled by the daemon's task group."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            due = loop.time() + _QUEUE_S
            members = self._tell_queue(force=False)
            # At most one message a second; a change within the pause waits for its end.
            await asyncio.sleep(due - loop.time())
            if not members["running"]:  # else its tokens and its time change all along
                await self._changed.wait()

    async def run_health(self) -> None:
        """Publish health and stats; cancelled by the daemon's task group."""
        while True:
            await asyncio.sleep(_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S - _PAUSE_S):
                    await self._news.wait()
            self._news.clear()
            if not self._connected():
                continue
            now = asyncio.get_running_loop().time()
            members, reasons = self._views.health()
            told = (members["model_loaded"], members["worker"]["pid"], members.get("prefix"), reasons)
            if told != self._told or now - self._health_at >= _HEALTH_S:
                self._tell_health()
            if now - self._stats_at >= _STATS_S or self._views.finished() != self._finished:
                self._tell_stats()

    def _tell_queue(self, *, force: bool) -> Mapping[str, Any]:
        members = self._views.queue()
        payload = encode(members)
        if self._connected() and (force or payload != self._last_queue):
            self._last_queue = payload
            self._retain("queue", payload)
        return members

    def _tell_health(self) -> None:
        self._health_at = asyncio.get_running_loop().time()
        members = self.health()
        pid, reasons = members["worker"]["pid"], self._views.health()[1]
        self._told = (members["model_loaded"], pid, members.get("prefix"), reasons)
        self._retain("health", encode(members))

    def _tell_stats(self) -> None:
        self._stats_at = asyncio.get_running_loop().time()
        self._finished = self._views.finished()
        self._publish(Outbound(self._topics.state("stats"), encode(self._views.stats()), qos=0, retain=True))

    def _retain(self, name: str, payload: bytes) -> None:
        self._publish(Outbound(self._topics.state(name), payload, qos=1, retain=True))
