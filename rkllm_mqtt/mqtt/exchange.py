"""What is said over one connection: CONNECT and SUBSCRIBE, messages and acks, until the connection ends.

Rule 1: paho's callbacks only note and collect; the rest of the daemon is called after paho has returned.
Rule 2: nothing of one connection reaches the next: each exchange has a number, and acks of others are void.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.acks import AckQueue
from rkllm_mqtt.mqtt.client import (
    ConnectFlags,
    DisconnectFlags,
    PahoClient,
    Properties,
    ReasonCode,
)
from rkllm_mqtt.mqtt.driver import GARBLED, Driver
from rkllm_mqtt.mqtt.limits import BrokerLimits
from rkllm_mqtt.mqtt.link import Link
from rkllm_mqtt.mqtt.loss import LinkLost, Loss
from rkllm_mqtt.mqtt.messages import Inbound, PublishOutcome, Subscription, outcome_of_puback
from rkllm_mqtt.mqtt.packets import DISCONNECT, DISCONNECT_WITH_WILL, publish_bytes
from rkllm_mqtt.mqtt.publication import read_publish
from rkllm_mqtt.mqtt.refusals import Refusals
from rkllm_mqtt.mqtt.window import Window

log = get_logger(__name__)

TICK_S = 1.0
"""How often the keepalive is looked after."""

Answer = TypeVar("Answer")


class Exchange:
    """One connection, from CONNECT to its end."""

    def __init__(
        self,
        client: PahoClient,
        link: Link,
        window: Window,
        refusals: Refusals,
        *,
        number: int,
        session: str,
        inflight: int,
        deliver: Callable[[Inbound], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._window = window
        self._refusals = refusals
        self._inflight = inflight
        self._deliver = deliver
        self._acks = AckQueue()
        self._collected: list[Inbound] = []
        self._answers: dict[int, asyncio.Future[list[int]]] = {}
        self._connack: asyncio.Future[None] = self._loop.create_future()
        self.driver = Driver(client, link, self._after_read)
        self.number = number
        self.v5 = client.v5
        self.session = session
        self.limits = BrokerLimits()
        self._open = False

    async def greet(self, within_s: float) -> None:
        """Send CONNECT and wait for the broker's consent.

        Raises:
            LinkLost: The broker refused, closed, or said nothing for `within_s`.
        """
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_received = self._on_received
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_answer
        client.on_unsubscribe = self._on_answer
        self.driver.start()
        await self._reach(self._connack, within_s, "CONNACK")

    async def subscribe(self, subscriptions: Sequence[Subscription], within_s: float) -> tuple[str, ...]:
        """Subscribe, and return the topic filters that the broker did not grant.

        Raises:
            LinkLost: The connection ended, or an answer did not come for `within_s`.
        """
        # Asking for `$share` where it is not served is a protocol error, or granted and then silent.
        wanted = [s for s in subscriptions if self.limits.shared_subscriptions or not s.shared]
        refused = [s.topic_filter for s in subscriptions if not self.limits.shared_subscriptions and s.shared]
        for mid, asked in self._client.ask_for(wanted).items():
            granted = await self._reach(self._answer_to(mid), within_s, "SUBACK")
            refused += [s.topic_filter for s, code in zip(asked, granted, strict=False) if code >= 0x80]
        return tuple(refused)

    async def unsubscribe(self, topic_filters: Sequence[str], within_s: float) -> None:
        """Unsubscribe and wait for the broker's answer, so that nothing is in flight towards us any more.

        Raises:
            LinkLost: The connection ended, or the answer did not come for `within_s`.
        """
        _, mid = self._client.unsubscribe(list(topic_filters))
        if mid is not None:
            await self._reach(self._answer_to(mid), within_s, "UNSUBACK")

    async def last(self) -> Loss:
        """Wait for the end of the connection, keeping it alive; return why it ended."""
        while not self.driver.lost.done():
            await asyncio.wait({self.driver.lost}, timeout=TICK_S)
            self.driver.tick()
        return self.driver.lost.result()

    def open(self) -> None:
        """Let QoS 1 messages flow; call it once the subscriptions stand, lest answers be missed."""
        self._open = True
        self.pump()

    def pump(self) -> None:
        """Hand over what the window has room for, then the acks that waited for it."""
        if not self._open or self.driver.lost.done():
            return
        while (pending := self._window.next()) is not None:
            if not self.limits.fits(publish_bytes(pending.message, v5=self.v5)):
                pending.resolve(PublishOutcome.TOO_LARGE)
                continue
            self._window.sent(self._client.hand_over(pending.message), pending, self._loop.time())
        self._release_acks()

    def ack(self, inbound: Inbound) -> None:
        """Send PUBACK as soon as the messages received before have theirs; void for another connection's."""
        if self._acks.acknowledge(inbound, self._window.submitted):
            self._release_acks()

    async def leave(self, *, with_will: bool, within_s: float) -> None:
        """Send DISCONNECT and wait until the broker has closed; the will is published only on demand."""
        if with_will and not self.v5:
            return  # 3.1.1 publishes the will of a connection that ends without DISCONNECT
        self.driver.write(DISCONNECT_WITH_WILL if with_will else DISCONNECT)
        await asyncio.wait({self.driver.lost}, timeout=within_s)

    async def _reach(self, goal: asyncio.Future[Answer], within_s: float, awaited: str) -> Answer:
        ends_at = self._loop.time() + within_s
        while not goal.done():
            if self.driver.lost.done():
                raise LinkLost(self.driver.lost.result())
            left_s = ends_at - self._loop.time()
            if left_s <= 0:
                raise LinkLost(Loss(f"the broker sent no {awaited} within {within_s:g} s", stalled=True))
            either: set[asyncio.Future[Any]] = {goal, self.driver.lost}
            await asyncio.wait(either, timeout=min(TICK_S, left_s), return_when=asyncio.FIRST_COMPLETED)
            self.driver.tick()
        return goal.result()

    def _answer_to(self, mid: int) -> asyncio.Future[list[int]]:
        return self._answers.setdefault(mid, self._loop.create_future())

    def _release_acks(self) -> None:
        for inbound in self._acks.release(self._window.published):
            self._client.ack(inbound.mid, inbound.qos)

    def _after_read(self) -> None:
        collected, self._collected = self._collected, []
        for inbound in collected:
            try:
                self._deliver(inbound)
            except Exception:  # outermost line of a loop callback: its neighbours must not suffer
                log.exception("message_not_taken", topic=inbound.topic, payload_bytes=len(inbound.payload))
                self.ack(inbound)
        self.pump()

    # What follows is called by paho from within its reader.

    def _on_connect(
        self,
        _client: Any,
        _userdata: Any,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.driver.lose(Loss(f"refused by the broker: {str(reason).lower()}", reason.value))
            return
        self.limits = BrokerLimits.of_connack(flags.session_present, properties, v5=self.v5)
        window = self._window
        window.limit = min(self._inflight, self.limits.receive_maximum)
        if not flags.session_present:
            self.session = secrets.token_hex(8)
        sizes = [publish_bytes(message, v5=self.v5) for message in window.messages_under_way]
        window.repeated(self._loop.time())
        too_much = len(sizes) > window.limit or not all(map(self.limits.fits, sizes))
        if not flags.session_present or too_much or window.gave_up:
            # Else paho would now repeat them all as duplicates: for a session that knows nothing of them, or
            # beyond what this broker takes, which costs the connection, again and again.
            self._client.drop_out_messages()
            window.send_again()
        if not self._connack.done():
            self._connack.set_result(None)

    def _on_disconnect(
        self,
        _client: Any,
        _userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.driver.lose(Loss(f"ended by the broker: {str(reason).lower()}", reason.value))
        elif reason.getName() == "Keep alive timeout":
            self.driver.lose(Loss("the broker fell silent"))
        elif reason.getName() == "Protocol error":
            self.driver.lose(Loss(GARBLED, closed=True))
        else:
            self.driver.lose(Loss(self.driver.broken() or "the broker closed the connection", closed=True))

    def _on_received(self, first: int, body: bytes) -> None:
        inbound = read_publish(first, body, v5=self.v5, connection=self.number, session=self.session)
        if inbound.qos:
            self._acks.received(inbound)
        self._collected.append(inbound)

    def _on_publish(
        self, _client: Any, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        outcome = outcome_of_puback(reason.value)
        topic = self._window.settle(mid, outcome)
        if topic is not None and self._refusals.settled(topic, outcome, self._loop.time()):
            log.error("publish_refused", topic=topic, reason=str(reason).lower())

    def _on_answer(
        self,
        _client: Any,
        _userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        answer = self._answer_to(mid)
        if not answer.done():
            answer.set_result([reason.value for reason in reasons])
