"""One short connection to the broker that leaves no trace, not even where the broker takes us for the daemon.

With `use_username_as_clientid` a broker gives our connection the daemon's own session. A clean start would
then delete the prompts queued for it, and an acknowledged prompt would be lost. So:

Rule 1: the session is resumed, never started clean, and nothing received is acknowledged.
Rule 2: a session that exists under our random client id is the daemon's: we leave it as it was.
Rule 3: only a session that began with us is removed.
"""

import asyncio
import contextlib
import os
import secrets
import select
import ssl
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.mqtt.dial import dial
from rkllm_mqtt.mqtt.link import Link

KEEPALIVE_S = 30


class Stage(Enum):
    """How far an attempt to connect came."""

    DIALLING = "dialling"
    """No byte stream: name, network, TLS or websocket."""
    SILENT = "silent"
    """The broker closed, or said nothing: as one may that does not know this MQTT version."""
    REFUSED = "refused"
    """The broker answered, and does not want us."""


class LinkError(Exception):
    """No connection; the message says why."""

    def __init__(self, reason: str, stage: Stage) -> None:
        super().__init__(reason)
        self.stage = stage


class _Paho(paho.Client):
    """paho over a byte stream that `dial` opened: its own way in leaks the socket when TLS fails."""

    link: Link | None = None

    def _create_socket(self) -> Any:
        return self.link


class BrokerLink:
    """A connection in one protocol version; `open`, use, `close`."""

    def __init__(self, config: MqttConfig, version: str) -> None:
        self.version = version
        self.taken_for_daemon = False
        """The broker knew a session under our random id: it goes by the user name."""
        self.maximum_packet_bytes: int | None = None
        self.newest: dict[str, bytes] = {}
        """Newest message per topic, of all that arrived."""
        self._config = config
        self._verdict: ReasonCode | None = None
        self._lost: str | None = None
        self._receipts: dict[int, list[ReasonCode]] = {}
        self._client_id = f"rkllm-mqtt-doctor-{secrets.token_hex(6)}"
        self._client = self._build(clean=False)

    @property
    def v5(self) -> bool:
        """Say whether this is MQTT 5, the only one that gives reasons."""
        return self.version == "5"

    def open(self) -> None:
        """Connect and wait for the broker's consent.

        Raises:
            LinkError: Nobody answers, or the broker refuses us.
        """
        self._connect(clean=False)
        if not self.wait(lambda: self._verdict is not None, self._config.connect_timeout_s):
            silence = f"no answer within {self._config.connect_timeout_s:g} s"
            raise LinkError(self._lost or silence, Stage.SILENT)
        if self._verdict is not None and self._verdict.is_failure:
            raise LinkError(str(self._verdict), Stage.REFUSED)

    def subscribe(self, filters: list[str], timeout_s: float) -> dict[str, str]:
        """Subscribe at QoS 0; return the refused filters with the broker's reason, "no answer" included."""
        refused = {}
        for topic_filter in filters:  # one packet each: some brokers close the connection for a forbidden one
            code, mid = self._client.subscribe(topic_filter, 0)
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
                refused[topic_filter] = self._lost or "the connection was closed"
                continue
            codes = self._receipt(mid, timeout_s)
            if codes is None:
                refused[topic_filter] = self._lost or "no answer"
            elif codes[0].is_failure:
                refused[topic_filter] = str(codes[0])
        return refused

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> str | None:
        """Publish at QoS 1, not retained; return why the broker refused it, None when it took it."""
        receipt = self._client.publish(topic, payload, qos=1)
        if receipt.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return self._lost or "the connection was closed"
        codes = self._receipt(receipt.mid, timeout_s)
        if codes is None:
            return self._lost or "no answer"
        return str(codes[0]) if codes[0].is_failure else None

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Serve the connection until `done` or the time is over; return what `done` says at the end."""
        end = time.monotonic() + timeout_s
        while not done() and self._lost is None and time.monotonic() < end:
            self._turn(end - time.monotonic())
        return done()

    def close(self) -> None:
        """Leave; a session that began with us is removed, the daemon's stays as it was."""
        accepted = self._verdict is not None and not self._verdict.is_failure and self._lost is None
        properties = None
        if accepted and self.v5:
            properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call] # paho's own gap
            properties.SessionExpiryInterval = self._config.session_expiry_s if self.taken_for_daemon else 0
        self._leave(properties)
        if accepted and not self.v5 and not self.taken_for_daemon:
            self._remove_session()

    def _leave(self, properties: Properties | None = None) -> None:
        link, self._client.link = self._client.link, None
        if link is None:
            return
        self._client.disconnect(properties=properties)
        self._client._reset_sockets()  # noqa: SLF001 - paho offers no other way to let go of its socket
        link.close()

    def _remove_session(self) -> None:
        # Only a clean start ends a session of MQTT 3.1.1.
        self._client, self._verdict = self._build(clean=True), None
        with contextlib.suppress(LinkError):
            self._connect(clean=True)
            self.wait(lambda: self._verdict is not None, self._config.connect_timeout_s)
        self._leave()

    def _connect(self, *, clean: bool) -> None:
        try:
            self._client.link = asyncio.run(dial(self._config))
        except ssl.SSLError as exc:
            reason = f"TLS: {getattr(exc, 'verify_message', '') or exc.reason or exc}"
            raise LinkError(reason, Stage.DIALLING) from exc
        except (OSError, ValueError) as exc:
            raise LinkError(_reason(exc), Stage.DIALLING) from exc
        if not self.v5:
            self._client.connect("broker", keepalive=KEEPALIVE_S)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's own gap
        # Should we be taken for the daemon and then die, its session must not end before it is back.
        properties.SessionExpiryInterval = min(self._config.session_expiry_s, 0xFFFFFFFF)
        self._client.connect("broker", keepalive=KEEPALIVE_S, clean_start=clean, properties=properties)

    def _turn(self, timeout_s: float) -> None:
        client, link = self._client, self._client.link
        if link is None:
            self._lost = "the connection was closed"
            return
        try:
            if client.want_write():
                client.loop_write()
            link.flush()
            wait_s = 0.0 if link.buffered else max(0.0, min(timeout_s, 1.0))
            select.select([link], [link] if link.unsent else [], [], wait_s)
        except OSError as exc:
            self._lost = exc.strerror or str(exc)
            return
        client.loop_read()
        while link.buffered and self._lost is None:
            client.loop_read()
        client.loop_misc()

    def _build(self, *, clean: bool) -> _Paho:
        config = self._config
        client = _Paho(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if self.v5 else MQTTProtocolVersion.MQTTv311,
            clean_session=None if self.v5 else clean,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if config.username is not None:
            password = config.password.get_secret_value() if config.password is not None else None
            client.username_pw_set(config.username, password)
        client.on_socket_close = _flush  # paho closes as soon as the link has taken its DISCONNECT
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._receipts.__setitem__(mid, codes)
        client.on_publish = lambda _c, _u, mid, code, _p: self._receipts.__setitem__(mid, [code])
        return client

    def _receipt(self, mid: int, timeout_s: float) -> list[ReasonCode] | None:
        self.wait(lambda: mid in self._receipts, timeout_s)
        return self._receipts.pop(mid, None)

    def _on_connect(self, _c: Any, _u: Any, flags: paho.ConnectFlags, reason: ReasonCode, found: Any) -> None:
        self._verdict = reason
        self.taken_for_daemon = bool(flags.session_present)
        limit = getattr(found, "MaximumPacketSize", None)
        self.maximum_packet_bytes = limit if isinstance(limit, int) else None

    def _on_disconnect(
        self, _c: Any, _u: Any, flags: paho.DisconnectFlags, reason: ReasonCode, _p: Any
    ) -> None:
        by_broker = flags.is_disconnect_packet_from_server
        self._lost = str(reason) if by_broker else "the connection was closed"

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        try:
            self.newest[message.topic] = bytes(message.payload)
        except UnicodeDecodeError:
            return  # a topic that no topic of ours is like


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:  # asyncio's own texts repeat the address
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _flush(_client: paho.Client, _userdata: Any, link: Any) -> None:
    with contextlib.suppress(OSError):
        link.flush()
