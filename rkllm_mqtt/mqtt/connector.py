"""Connect to the broker, again and again: versions, back-off, subscriptions, and who is told.

Rule 1: a callback of the daemon is never called from inside paho, nor for a connection that is gone.
Rule 2: that the broker has forgotten our session is told before any message of the new one.
"""

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct

from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.backoff import LASTING_S, BackOff
from rkllm_mqtt.mqtt.client import PahoClient
from rkllm_mqtt.mqtt.dial import address_of, dial
from rkllm_mqtt.mqtt.exchange import Exchange
from rkllm_mqtt.mqtt.link import Link
from rkllm_mqtt.mqtt.loss import SESSION_TAKEN_OVER, UNSUPPORTED_VERSION, LinkLost, Loss, reason_of
from rkllm_mqtt.mqtt.messages import Connection, Inbound, Outbound, Subscription
from rkllm_mqtt.mqtt.refusals import Refusals
from rkllm_mqtt.mqtt.versions import Version, VersionChoice
from rkllm_mqtt.mqtt.window import Window

log = get_logger(__name__)

LEAVE_S = 1.0
"""Longest wait for the broker to close after DISCONNECT."""


class Listener(Struct, frozen=True):
    """Who is told what, always outside of paho."""

    message: Callable[[Inbound], None]
    connected: Callable[[Connection], None]
    lost: Callable[[str], None]
    session_lost: Callable[[str], None]


class Connector:
    """The connections of one session, one after the other."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Outbound,
        subscriptions: Sequence[Subscription],
        session_token: str,
        window: Window,
        listener: Listener,
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._will = will
        self._subscriptions = list(subscriptions)
        self._unwanted: list[str] = []
        self._window = window
        self._listener = listener
        self._versions = VersionChoice(config.protocol)
        self._backoff = BackOff(config.reconnect_max_s)
        self._client: PahoClient | None = None
        self._attempts = 0
        self._logged: str | None = None
        self.refusals = Refusals()
        """Topics on which the broker does not let us publish."""
        self.session_token = session_token
        self.exchange: Exchange | None = None
        """What is said over the connection, from CONNECT on."""
        self.connected = False
        """Whether the subscriptions stand and messages flow."""
        self.closing = False
        """We are leaving: the end of the connection is nobody's concern any more."""
        self.granted: Connection | None = None
        """What the broker granted last."""
        self.connections = 0
        self.taken_over = False
        self.last_error: str | None = None

    @property
    def protocol(self) -> str:
        """Return the version that is spoken, or was tried last."""
        v5 = self._versions.current is Version.V5 if self._client is None else self._client.v5
        return str(Version.V5 if v5 else Version.V311)

    async def keep_connected(self) -> None:
        """Connect again and again. Cancelled when the session ends; an error in a callback ends both."""
        while not self.closing:
            pause_s = await self._one_connection()
            await asyncio.sleep(pause_s)

    async def unsubscribe(self, topic_filters: Sequence[str], within_s: float) -> bool:
        """Unsubscribe now and at each new connection; return whether the broker has confirmed it now."""
        self._unwanted += [name for name in topic_filters if name not in self._unwanted]
        self._subscriptions = [s for s in self._subscriptions if s.topic_filter not in self._unwanted]
        if self.exchange is None or not self.connected:
            return False
        try:
            await self.exchange.unsubscribe(topic_filters, within_s)
        except LinkLost:
            return False
        return True

    async def _one_connection(self) -> float:
        """Connect, and stay until the connection ends; return the pause before the next attempt, seconds."""
        try:
            link = await dial(self._config)
        except OSError as exc:
            return self._failed(Loss(reason_of(exc)))
        exchange = self.exchange = self._begin(link)
        try:
            await exchange.greet(self._versions.patience_s(self._config.connect_timeout_s))
            if exchange.session != self.session_token:
                self.session_token = exchange.session
                self._listener.session_lost(exchange.session)
            if not self._versions.accepted():
                await exchange.leave(with_will=False, within_s=LEAVE_S)
                return 0.0
            return await self._while_connected(exchange)
        except LinkLost as exc:
            return self._not_greeted(exc.loss)
        finally:
            self.exchange = None
            self.connected = False
            exchange.driver.close()

    def _begin(self, link: Link) -> Exchange:
        version = self._versions.current
        if self._client is None or self._client.v5 != (version is Version.V5):
            self._client = PahoClient(self._config, self._client_id, self._will, version)
            self._window.send_again()  # what the former client had sent, this one knows nothing of
        self._attempts += 1
        return Exchange(
            self._client,
            link,
            self._window,
            self.refusals,
            number=self._attempts,
            session=self.session_token,
            inflight=self._config.inflight,
            deliver=self._listener.message,
        )

    async def _while_connected(self, exchange: Exchange) -> float:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        lasting = loop.call_later(LASTING_S, self._lasting)
        try:
            if self._unwanted and exchange.limits.session_present:
                await exchange.unsubscribe(self._unwanted, self._config.connect_timeout_s)
            refused = await exchange.subscribe(self._subscriptions, self._config.connect_timeout_s)
            self._announce(exchange, refused)
            loss = await exchange.last()
        except LinkLost as exc:
            loss = exc.loss
        finally:
            lasting.cancel()
        self._backoff.lost(loop.time() - began_at)
        self._note_poison(self._window.lost(loop.time()))
        # MQTT 5 has a word for it, which mosquitto 2.0.11 does not use: it just closes, as on 3.1.1.
        if loss.code == SESSION_TAKEN_OVER or self._backoff.unsteady:
            self.taken_over = True
        if self.connected and not self.closing:
            self.connected = False
            self._listener.lost(loss.reason)
        return self._failed(loss)

    def _announce(self, exchange: Exchange, refused: tuple[str, ...]) -> None:
        limits = exchange.limits
        self.connected = True
        self.connections += 1
        self.last_error = self._logged = None
        self.granted = Connection(
            protocol=self.protocol,
            session_present=limits.session_present,
            maximum_packet_bytes=limits.maximum_packet_bytes,
            receive_maximum=limits.receive_maximum,
            shared_subscriptions=limits.shared_subscriptions,
            refused_subscriptions=refused,
            number=exchange.number,
        )
        log.info(
            "broker_connected",
            broker=address_of(self._config),
            protocol=self.protocol,
            session_present=limits.session_present,
        )
        for topic_filter in refused:
            log.error("subscription_refused", filter=topic_filter)
        exchange.open()
        self._listener.connected(self.granted)

    def _note_poison(self, message: Outbound | None) -> None:
        if message is not None:
            size = len(message.payload)
            log.error("message_given_up", levels=message.topic.count("/") + 1, payload_bytes=size)

    def _lasting(self) -> None:
        self._backoff.lasting()
        self._window.steady()
        self.taken_over = False

    def _not_greeted(self, loss: Loss) -> float:
        if loss.code == UNSUPPORTED_VERSION and self._versions.refused():
            log.info("protocol_refused", broker=address_of(self._config), next=self._versions.current)
            return 0.0
        if loss.closed or loss.stalled:
            self._versions.unanswered(stalled=loss.stalled)
        return self._failed(loss)

    def _failed(self, loss: Loss) -> float:
        self.last_error = loss.reason
        pause_s = self._backoff.pause_s(taken_over=self.taken_over)
        if not self.closing:
            # Once for each reason: a broker that is away for a week must not fill the log.
            report = log.debug if loss.reason == self._logged else log.warning
            report("broker_lost", broker=address_of(self._config), reason=loss.reason, retry_s=pause_s)
        self._logged = loss.reason
        return pause_s
