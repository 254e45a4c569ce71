"""Keep the retained discovery message of this node at the broker: published, refreshed, or cleared.

Rule 1: a topic is noted in the journal before anything is retained on it, so that a renamed node or a
daemon with discovery switched off still knows what to clear.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.homeassistant import build_discovery, device_facts, discovery_topic
from rkllm_mqtt.core.topics import Topics
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Outbound, PublishOutcome
from rkllm_mqtt.mqtt.session import Session
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

META_KEY = "discovery_topics"
MAILBOXES_KEY = "mailboxes"
_KEPT = 16
"""Former topics remembered at most: a node that is renamed more often than it reaches its broker."""


def noted_topics(meta: Mapping[str, str]) -> tuple[str, ...]:
    """Return the topics on which an earlier process may have left a discovery message."""
    return tuple(json.loads(meta.get(META_KEY, "[]")))


def own_topic(config: Config) -> str | None:
    """Return where this node's discovery message belongs; None when discovery is off."""
    settings = config.homeassistant
    return discovery_topic(settings.prefix, config.node) if settings.discovery else None


def noted_mailboxes(config: Config, meta: Mapping[str, str]) -> str:
    """Return what is to be noted under `MAILBOXES_KEY`: where this and earlier processes have mailboxes."""
    targets = (config.node, *config.groups)
    known = [*json.loads(meta.get(MAILBOXES_KEY, "[]")), *(f"{config.base}/{name}" for name in targets)]
    return json.dumps(list(dict.fromkeys(reversed(known)))[:_KEPT][::-1])


def build_topics(config: Config, meta: Mapping[str, str]) -> Topics:
    """Return the topics of a node, with its discovery and the mailboxes of earlier configurations."""
    topic = own_topic(config)
    former = frozenset(json.loads(meta.get(MAILBOXES_KEY, "[]")))
    return Topics(
        config.base,
        config.node,
        config.groups,
        config.reply_topics,
        discovery=tuple({*noted_topics(meta), *([topic] if topic else [])}),
        birth=f"{config.homeassistant.prefix}/status" if topic else None,
        former=former,
        scheduled=tuple((s.client, s.reply_topic) for s in config.schedules if s.reply_topic is not None),
    )


class Discovery:
    """The discovery message of one node."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        session: Session,
        slot: Slot,
        info: Callable[[], Mapping[str, Any]],
        note: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]],
    ) -> None:
        """Keep the arguments.

        Args:
            config: Names the topic and Home Assistant's client.
            journal: Remembers the topics.
            session: Publishes.
            slot: Its model tells what the device is.
            info: Returns the members of `info` as they are now.
            note: Writes to the journal what can be done without; a failure is logged.
        """
        self._topic = own_topic(config)
        self._client = config.homeassistant.client
        self._noted = noted_topics(journal.meta)
        self._stale = tuple(old for old in self._noted if old != self._topic)
        self._journal = journal
        self._session = session
        self._slot = slot
        self._info = info
        self._note = note
        self._told = b""

    async def recover(self) -> None:
        """Note our topic, before the first connection."""
        if self._topic is not None and self._topic not in self._noted:
            await self._remember((*self._stale, self._topic))

    async def announce(self) -> None:
        """Clear what earlier processes left, and publish: somebody may have forgotten it."""
        for old in self._stale:
            if await self._retain(old, b"") is not PublishOutcome.DELIVERED:
                return  # again at the next connection
        if self._stale:
            log.info("discovery_cleared", topics=len(self._stale))
            self._stale = ()
            await self._remember((self._topic,) if self._topic else ())
        await self._tell(self._payload())

    async def refresh(self) -> None:
        """Publish if there is something new: the slot has changed."""
        payload = self._payload()
        if payload != self._told and self._session.connected:
            await self._tell(payload)

    def _payload(self) -> bytes:
        return encode(build_discovery(device_facts(self._info(), self._client)))

    async def _tell(self, payload: bytes) -> None:
        # Before the first load the driver and the platform are not known. Each change of the message makes
        # all entities unavailable for a moment; the one of an earlier process is still there.
        if self._topic is None or not (self._slot.loaded or self._slot.problem):
            return
        self._told = payload
        if await self._retain(self._topic, payload) is PublishOutcome.REFUSED:
            log.warning("discovery_refused", topic=self._topic)

    async def _retain(self, topic: str, payload: bytes) -> PublishOutcome:
        return await self._session.publish(Outbound(topic, payload, qos=1, retain=True))

    async def _remember(self, topics: tuple[str, ...]) -> None:
        await self._note(lambda: self._journal.set_meta(META_KEY, json.dumps(topics[-_KEPT:])))
