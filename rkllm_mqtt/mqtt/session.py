"""One MQTT session for as long as the daemon lives: what the rest of the daemon sees of MQTT.

`connector` keeps the connection, `exchange` speaks over it, `window` keeps what has to arrive.

Rule 1: every topic we publish to passes `may_publish`, the will included; nothing is sent to another.
Rule 2: QoS 1 messages outlive connections and sessions; QoS 0 ones are dropped and counted.
"""

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.connector import LEAVE_S, Connector, Listener
from rkllm_mqtt.mqtt.messages import (
    Connection,
    Inbound,
    Outbound,
    PublishDenied,
    PublishOutcome,
    Subscription,
)
from rkllm_mqtt.mqtt.packets import publish_bytes, qos0_publish
from rkllm_mqtt.mqtt.refusals import Refusals
from rkllm_mqtt.mqtt.window import Window

log = get_logger(__name__)

SEND_BOUND_BYTES = 1_048_576
"""Unsent bytes beyond which QoS 0 messages are dropped: some 5,000 deltas, minutes of a slow connection."""

ANSWER_S = 2.0
"""Longest wait for the PUBACKs of the farewell, and for an UNSUBACK."""

KNOWN_TOPICS = 1_024
"""Allowed topics remembered, so that `may_publish` is not asked for every token."""


class Session:
    """One MQTT session; `run` keeps it up. All methods belong to the event loop that runs it."""

    def __init__(
        self,
        config: MqttConfig,
        *,
        client_id: str,
        will: Outbound,
        subscriptions: Sequence[Subscription],
        may_publish: Callable[[str], bool],
        session_token: str,
        on_message: Callable[[Inbound], None],
        on_connected: Callable[[Connection], None],
        on_session_lost: Callable[[str], None],
        on_lost: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """Keep the arguments; nothing is connected before `run`.

        Args:
            config: The broker.
            client_id: Identifies the session to the broker; secret, constant, one process at a time.
            will: Published by the broker when we are gone without a farewell.
            subscriptions: Topic filters, not overlapping.
            may_publish: Whether we may publish to a topic; its answer for a topic never changes.
            session_token: As last given to `on_session_lost`; any text at the first start.
            on_message: A message came. Acknowledge it with `ack` when it is safe. Should it raise, the
                message is acknowledged and gone. The other callbacks must not raise: it would end `run`.
            on_connected: Connected, and all subscriptions answered.
            on_session_lost: The broker has no session of ours: a new one begins, with this token. Called
                before any message of it; also at the first start.
            on_lost: A connection that `on_connected` told of is gone, with the reason; logged elsewhere.
        """
        self._will = will
        self._may_publish = may_publish
        self._on_message = on_message
        self._window = Window(config.inflight)
        listener = Listener(self._take, on_connected, on_lost, on_session_lost)
        self._connector = Connector(
            config, client_id, will, subscriptions, session_token, self._window, listener
        )
        self._work: asyncio.Task[None] | None = None
        self._known_topics: set[str] = set()
        self._denied = Refusals()
        self.dropped = 0
        """QoS 0 messages that `send` could not send."""
        self.malformed = 0
        """Messages whose topic was not UTF-8: acknowledged and dropped."""

    @property
    def connected(self) -> bool:
        """Return whether the subscriptions stand and messages flow."""
        return self._connector.connected

    @property
    def protocol(self) -> str:
        """Return `5` or `3.1.1`: what is spoken, or was tried last."""
        return self._connector.protocol

    @property
    def session_token(self) -> str:
        """Return the name of the broker's session; another one whenever the broker has forgotten it."""
        return self._connector.session_token

    @property
    def taken_over(self) -> bool:
        """Return whether another client uses our client id, or it looks like it: quick losses in a row."""
        return self._connector.taken_over

    @property
    def last_error(self) -> str | None:
        """Return why there is no connection, for a person; None while there is one."""
        return self._connector.last_error

    @property
    def maximum_packet_bytes(self) -> int | None:
        """Return the largest packet the broker takes; None when it names none or we never connected."""
        granted = self._connector.granted
        return granted.maximum_packet_bytes if granted else None

    @property
    def shared_subscriptions(self) -> bool:
        """Return whether the broker says that it serves `$share`."""
        granted = self._connector.granted
        return granted is not None and granted.shared_subscriptions

    @property
    def refused_topics(self) -> tuple[str, ...]:
        """Return the topics on which the broker did not let us publish lately; only MQTT 5 tells."""
        return self._connector.refusals.topics(asyncio.get_running_loop().time())

    @property
    def refused_subscriptions(self) -> tuple[str, ...]:
        """Return the topic filters that the broker did not grant at the last connection."""
        granted = self._connector.granted
        return granted.refused_subscriptions if granted else ()

    @property
    def reconnects(self) -> int:
        """Return how many times the connection came up again."""
        return max(0, self._connector.connections - 1)

    async def run(self) -> None:
        """Stay connected until `close`, or until cancelled: then the broker publishes the will.

        Raises:
            PublishDenied: The will's topic is not allowed.
        """
        if not self._permitted(self._will.topic):
            raise PublishDenied(self._will.topic)
        self._work = asyncio.create_task(self._connector.keep_connected(), name="mqtt-session")
        try:
            await self._work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._connector.closing or (task is not None and task.cancelling()):
                raise
        finally:
            self._connector.closing = True
            self._window.abandon()

    @property
    def unacknowledged(self) -> int:
        """Return how many QoS 1 messages are in memory: waiting to be sent, or sent and not acknowledged."""
        return self._window.waiting + self._window.under_way

    @property
    def unsent_bytes(self) -> int:
        """Return the bytes that the network has not taken yet; 0 while there is no connection."""
        exchange = self._connector.exchange
        return exchange.driver.unsent if self.connected and exchange is not None else 0

    def publish(self, message: Outbound) -> asyncio.Future[PublishOutcome]:
        """Publish, and tell in the future what became of it.

        QoS 1 is kept in order, in memory, until the broker's PUBACK, through any number of connections;
        cancelling the future drops a message that has not been sent. QoS 0 is decided at once.

        A topic that is not allowed is REFUSED, and logged: an address in the journal may be of another
        configuration, and must not end the daemon at each start.

        Raises:
            ValueError: A text or a property cannot be encoded (also OverflowError, UnicodeEncodeError).
        """
        publish_bytes(message, v5=True)  # what cannot be encoded is the caller's error, here and now
        outcome: asyncio.Future[PublishOutcome] = asyncio.get_running_loop().create_future()
        exchange = self._connector.exchange
        if not self._permitted(message.topic):
            outcome.set_result(PublishOutcome.REFUSED)
        elif self._connector.closing:
            outcome.set_result(PublishOutcome.RETRY)
        elif message.qos == 0:
            outcome.set_result(self._send_qos0(message))
        else:
            self._window.submit(message, outcome)
            if exchange is not None:
                exchange.pump()
        return outcome

    def send(self, message: Outbound) -> bool:
        """Send at QoS 0 and forget; return False when it was dropped.

        Not connected, congested, too large, or the topic is not allowed.
        """
        if message.topic not in self._known_topics and not self._permitted(message.topic):
            return False
        return self._send_qos0(message) is PublishOutcome.DELIVERED

    def ack(self, inbound: Inbound) -> None:
        """Acknowledge this very object, as it came through `on_message`; in any order, from any task.

        The PUBACK leaves when all messages received before have theirs, and after what was published before
        this call. Nothing happens for QoS 0, for a message of an earlier connection, or the second time.
        """
        if inbound.qos and self._connector.exchange is not None:
            self._connector.exchange.ack(inbound)

    def pause_reading(self) -> None:
        """Take no more from the broker; one read, up to some hundred messages, may still be delivered.

        The connection stays alive. A new connection reads again.
        """
        if self._connector.exchange is not None and self.connected:
            self._connector.exchange.driver.pause()

    def resume_reading(self) -> None:
        """Read again."""
        if self._connector.exchange is not None:
            self._connector.exchange.driver.resume()

    async def unsubscribe(self, topic_filters: Sequence[str]) -> bool:
        """Unsubscribe, now and at every new connection to a kept session.

        Returns:
            Whether the broker has confirmed it: then no further message of these filters is under way.
        """
        return await self._connector.unsubscribe(topic_filters, ANSWER_S)

    async def close(self, farewell: Sequence[Outbound]) -> None:
        """Publish the farewell at QoS 1, disconnect, and end `run`; open futures resolve with RETRY.

        When the broker does not acknowledge the farewell within 2 s, it is made to publish the will instead.
        """
        exchange = self._connector.exchange
        if exchange is not None and self.connected:
            outcomes = [self.publish(replace(message, qos=1)) for message in farewell]
            if outcomes:
                await asyncio.wait(outcomes, timeout=ANSWER_S)
            said = all(o.done() and o.result() is PublishOutcome.DELIVERED for o in outcomes)
            self._connector.closing = True
            if self._connector.exchange is exchange:
                await exchange.leave(with_will=not said, within_s=LEAVE_S)
        self._connector.closing = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})

    def _permitted(self, topic: str) -> bool:
        if topic in self._known_topics:
            return True
        if not topic or any(c in topic for c in "+#\0") or not self._may_publish(topic):
            now = asyncio.get_running_loop().time()
            if self._denied.settled(topic, PublishOutcome.REFUSED, now):  # once, not for each delta
                log.error("publish_denied", topic_bytes=len(topic.encode()))
            return False
        if len(self._known_topics) >= KNOWN_TOPICS:
            self._known_topics.clear()
        self._known_topics.add(topic)
        return True

    def _send_qos0(self, message: Outbound) -> PublishOutcome:
        exchange = self._connector.exchange
        if not self._connector.connected or exchange is None or exchange.driver.unsent > SEND_BOUND_BYTES:
            self.dropped += 1
            return PublishOutcome.RETRY
        packet = qos0_publish(message, v5=exchange.v5)
        if not exchange.limits.fits(len(packet)):
            self.dropped += 1
            return PublishOutcome.TOO_LARGE
        exchange.driver.write(packet)
        return PublishOutcome.DELIVERED

    def _take(self, inbound: Inbound) -> None:
        if inbound.topic:
            self._on_message(inbound)
            return
        # Not UTF-8, or an alias we never allowed. Unacknowledged, it would come back for ever.
        self.malformed += 1
        log.warning("malformed_topic", payload_bytes=len(inbound.payload), mid=inbound.mid)
        self.ack(inbound)
