"""A recording MQTT client, independent of the daemon's code."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 30.0
"""Longest wait of a test for something that must come."""


class Received:
    """One message that came."""

    def __init__(self, message: paho.MQTTMessage) -> None:
        self.topic: str = message.topic
        self.payload: bytes = message.payload
        self.retain: bool = message.retain
        self.qos: int = message.qos
        self.at = time.monotonic()
        self.properties = getattr(message, "properties", None)

    @cached_property
    def json(self) -> Any:
        """Return the payload parsed."""
        return json.loads(self.payload)

    def __repr__(self) -> str:
        return f"<{self.topic} {self.payload[:200]!r}>"


class Client:
    """Connected to a broker; keeps every message of its subscriptions in order."""

    def __init__(
        self,
        port: int,
        *,
        v5: bool = True,
        client_id: str = "",
        user: tuple[str, str] | None = None,
        ca_file: Path | None = None,
        **options: Any,
    ) -> None:
        self.messages: list[Received] = []
        self._by_topic: defaultdict[str, list[Received]] = defaultdict(list)
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._lost = threading.Event()
        self._answered: list[str] = []
        self._paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
            **options,
        )
        self._paho.max_inflight_messages_set(1000)
        self._paho.on_message = self._take
        self._paho.on_subscribe = lambda *_: self._subscribed.set()
        self._paho.on_connect = lambda _c, _u, _f, reason, _p: self._answered.append(str(reason))
        self._paho.on_disconnect = lambda *_: self._lost.set()
        if user is not None:
            self._paho.username_pw_set(*user)
        if ca_file is not None:
            self._paho.tls_set(str(ca_file))
        self._paho.connect("localhost" if ca_file else "127.0.0.1", port)
        self._paho.loop_start()

    def subscribe(self, *filters: str) -> "Client":
        """Subscribe at QoS 1 and wait for the broker's answer."""
        for name in filters:
            self._subscribed.clear()
            self._paho.subscribe(name, qos=1)
            assert self._subscribed.wait(PATIENCE_S), f"no SUBACK for {name}"
        return self

    def refusal(self) -> str:
        """Return the reason of the broker's CONNACK, `Success` when it took us."""
        while not self._answered:
            assert not self._lost.wait(0.05) or self._answered, "the broker closed without a word"
        return self._answered[0]

    def lost(self, patience_s: float = PATIENCE_S) -> bool:
        """Return whether the broker ends the connection within so many seconds."""
        return self._lost.wait(patience_s)

    def try_publish(self, topic: str, payload: Any, **options: Any) -> str:
        """Publish at QoS 1 and return the reason of the PUBACK (MQTT 5)."""
        answers: dict[int, str] = {}
        changed = threading.Condition()

        def note(_client: object, _userdata: object, mid: int, reason: object, _properties: object) -> None:
            with changed:
                answers[mid] = str(reason)
                changed.notify_all()

        self._paho.on_publish = note
        mid = self.publish_soon(topic, payload, **options).mid
        with changed:
            assert changed.wait_for(lambda: mid in answers, PATIENCE_S), f"no PUBACK for {topic}"
        return answers[mid]

    def publish(
        self, topic: str, payload: Any, *, qos: int = 1, retain: bool = False, **properties: Any
    ) -> None:
        """Publish and wait for the PUBACK; dictionaries go as JSON."""
        self.publish_soon(topic, payload, qos=qos, retain=retain, **properties).wait_for_publish(PATIENCE_S)

    def publish_soon(
        self, topic: str, payload: Any, *, qos: int = 1, retain: bool = False, **properties: Any
    ) -> paho.MQTTMessageInfo:
        """Publish without waiting."""
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        carried = None
        if properties:
            carried = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(carried, name, value)
        return self._paho.publish(topic, payload, qos=qos, retain=retain, properties=carried)

    def wait(self, wanted: Callable[[Received], object], patience_s: float = PATIENCE_S) -> Received:
        """Return the first message that is wanted, also one that came before."""
        return self.wait_many(wanted, 1, patience_s)[0]

    def wait_many(
        self, wanted: Callable[[Received], object], count: int, patience_s: float = PATIENCE_S
    ) -> list[Received]:
        """Return the first `count` messages that are wanted."""
        found: list[Received] = []
        seen = 0
        until = time.monotonic() + patience_s
        with self._changed:
            while True:
                while seen < len(self.messages):
                    if wanted(self.messages[seen]):
                        found.append(self.messages[seen])
                        if len(found) == count:
                            return found
                    seen += 1
                left = until - time.monotonic()
                assert left > 0, f"{len(found)} of {count} came; last messages: {self.messages[-8:]}"
                self._changed.wait(left)

    def wait_next(self, patience_s: float) -> None:
        """Wait until another message comes, or for so long."""
        with self._changed:
            self._changed.wait(patience_s)

    def on(self, topic: str) -> list[Received]:
        """Return the messages of a topic so far."""
        with self._changed:
            return list(self._by_topic[topic])

    def reply(self, topic: str, patience_s: float = PATIENCE_S) -> Received:
        """Return the first message on a topic."""
        until = time.monotonic() + patience_s
        with self._changed:
            while not self._by_topic[topic]:
                left = until - time.monotonic()
                assert left > 0, f"nothing on {topic}; last messages: {self.messages[-8:]}"
                self._changed.wait(left)
            return self._by_topic[topic][0]

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._paho.disconnect()
        self._paho.loop_stop()

    def _take(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            received = Received(message)
            self.messages.append(received)
            self._by_topic[received.topic].append(received)
            self._changed.notify_all()
