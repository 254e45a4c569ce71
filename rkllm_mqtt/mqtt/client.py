"""paho's client, set up as we need it and given a socket that is already open.

The only place that leans on paho's inside: `_create_socket`, `_sock`, `_sock_recv`, `_sock_send`,
`_in_packet`, `_handle_publish` and `_last_msg_in` (and `_WebsocketWrapper` in `dial`). Tests show that each
seam still holds.
"""

import time
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.mqtt.link import Link
from rkllm_mqtt.mqtt.messages import Outbound, Subscription
from rkllm_mqtt.mqtt.packets import new_properties, paho_properties
from rkllm_mqtt.mqtt.versions import Version

_NEVER_S = 0xFFFFFFFF
"""Session expiry that means for ever, the largest value there is."""

FILTERS_PER_PACKET = 8
"""Topic filters in one SUBSCRIBE; some hosted brokers take no more."""

_LEAST_KEEPALIVE_S = 2
_BROKER_LOOKS_S = 5
"""mosquitto looks only every 5 to 6 s for clients that have fallen silent (2.0: src/keepalive.c)."""

__all__ = ["ConnectFlags", "DisconnectFlags", "PahoClient", "Properties", "ReasonCode"]


class PahoClient(Client):
    """One MQTT session in one protocol version, over one link after another."""

    def __init__(self, config: MqttConfig, client_id: str, will: Outbound, version: Version) -> None:
        """Prepare the session; nothing is sent."""
        self._link: Link | None = None
        self.on_received: Callable[[int, bytes], None] = lambda _first, _body: None
        """Called with the first byte of a PUBLISH and what follows its fixed header."""
        self._config = config
        self.v5 = version is Version.V5
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if self.v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if self.v5 else MQTTProtocolVersion.MQTTv311,
            # Or paho itself would fall back to MQTT 3.1, with a connect in the middle of a callback.
            reconnect_on_failure=False,
            manual_ack=True,
        )
        # Out of the way: our window knows the broker's limit, paho cannot change its own while connected.
        self.max_inflight_messages = 0
        self.max_queued_messages = 0
        if config.username is not None:
            password = config.password.get_secret_value() if config.password is not None else None
            self.username_pw_set(config.username, password)
        delay_s = config.will_delay_s if self.v5 else None
        properties = paho_properties(will, will_delay_s=delay_s) if self.v5 else None
        self.will_set(will.topic, will.payload, will.qos, will.retain, properties)

    def connect_over(self, link: Link) -> None:
        """Queue CONNECT for this link: the session is to be resumed, whatever came before."""
        self._link = link
        if not self.v5:
            self.connect("broker", keepalive=announced_keepalive_s(self._config.keepalive_s))
            return
        properties = new_properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = min(self._config.session_expiry_s, _NEVER_S)
        # False each time: paho's default is a clean start on the first connect, and a session that began with
        # one is forgotten by mosquitto when it restarts.
        self.connect(
            "broker",
            keepalive=announced_keepalive_s(self._config.keepalive_s),
            clean_start=False,
            properties=properties,
        )

    def ask_for(self, subscriptions: list[Subscription]) -> dict[int, list[Subscription]]:
        """Queue SUBSCRIBE packets; return what each packet identifier asks for."""
        asked = {}
        for start in range(0, len(subscriptions), FILTERS_PER_PACKET):
            chunk = subscriptions[start : start + FILTERS_PER_PACKET]
            if self.v5:
                # Stored retained requests are not wanted, and forwarded ones are marked as live.
                options = [
                    (
                        s.topic_filter,
                        SubscribeOptions(s.qos, retainAsPublished=False, retainHandling=0 if s.stored else 2),
                    )
                    for s in chunk
                ]
                _, mid = self.subscribe(options)
            else:
                _, mid = self.subscribe([(s.topic_filter, s.qos) for s in chunk])
            if mid is not None:
                asked[mid] = chunk
        return asked

    def hand_over(self, message: Outbound) -> int:
        """Queue a QoS 1 PUBLISH; return its packet identifier.

        The caller can note the identifier in peace: nothing is read before the loop's next turn.
        """
        properties = paho_properties(message) if self.v5 else None
        while True:
            sent = self.publish(message.topic, message.payload, 1, message.retain, properties)
            # The identifiers go round; one whose message is still unacknowledged is passed over.
            if sent.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                return sent.mid

    def write_to_link(self) -> None:
        """Move paho's packets into the link, in order; they leave with its next flush."""
        if self.want_write():
            self.loop_write()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read as paho does; a PUBLISH that is there whole is taken without paho's many small steps."""
        if self._link is not None and self._sock is not None and not self._in_packet["command"]:
            packet = self._link.take_publish()
            if packet is not None:
                self._last_msg_in = time.monotonic()  # or paho would ping a broker that is heard all the time
                self.on_received(*packet)
                return MQTTErrorCode.MQTT_ERR_SUCCESS
        return super().loop_read(max_packets)

    def _create_socket(self) -> Any:
        return self._link

    # paho's own name exceptions of `ssl`, which may not be there; ours never come from below the link.

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._sock is None:
            raise ConnectionError("the link is closed")
        return self._sock.recv(bufsize)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if self._sock is None:
            raise ConnectionError("the link is closed")
        return self._sock.send(buf)

    def _handle_publish(self) -> MQTTErrorCode:
        self.on_received(self._in_packet["command"], bytes(self._in_packet["packet"]))
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def announced_keepalive_s(keepalive_s: int) -> int:
    """Return the keepalive of CONNECT: shorter, so that the will is out within 1.5 times `keepalive_s`."""
    return max(_LEAST_KEEPALIVE_S, keepalive_s - _BROKER_LOOKS_S)
