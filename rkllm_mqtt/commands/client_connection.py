"""One connection of a command to the broker: MQTT 5 where the broker speaks it, else 3.1.1.

Single-threaded: everything happens inside `open`, `pump` and the calls that wait for an answer. The
session is clean and ends with the process; what must survive is asked for again by `client`.

Rule: a session that is not ours stays as it was. With `use_username_as_clientid` a broker gives everybody who
signs in with the daemon's user the daemon's session, and a clean start would delete the prompts that wait in
it. So whoever signs in by a name asks first whether there is a session, and leaves it alone if there is.
"""

import json
import secrets
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import paho.mqtt.client as paho
from msgspec import Struct
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from rkllm_mqtt.commands.client_address import BrokerAddress
from rkllm_mqtt.commands.client_tls import tls_context
from rkllm_mqtt.commands.failure import BrokerUnreachable, CommandFailed

KEEPALIVE_S = 30
_FIRST_LOOK_S = 60
"""How long a session lasts if we die while we look whether it is ours, seconds; it has no subscriptions."""
_NOT_OURS_S = 604_800
"""How long one that is not ours shall last; its owner, back within seconds, says it anew."""
ANSWER_TIMEOUT_S = 10.0
"""Longest wait for CONNACK, SUBACK, UNSUBACK and PUBACK."""


class Waitable(Protocol):
    """What `select` takes: a file, a socket, an `Interruption`."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class Message(Struct, frozen=True):
    """A message from the broker."""

    topic: str
    payload: bytes
    retained: bool
    """True: stored earlier, delivered because of our subscription."""


class ConnectionLost(BrokerUnreachable):
    """The connection was there and ended; opening it again may help."""


class Connection:
    """A connection that is opened, pumped and closed by its owner; also a context manager."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._client_id = f"rkllm-mqtt-cli-{secrets.token_hex(6)}"
        self._paho: paho.Client | None = None
        self._verdict: ReasonCode | None = None
        self._lost: str | None = None
        self._session_present = False
        self._inbox: deque[Message] = deque()
        self._answers: dict[int, list[ReasonCode]] = {}
        self.protocol = ""
        """`5` or `3.1.1` once open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Return whether the broker accepted us and nothing ended it since."""
        return self._paho is not None and self._lost is None

    def open(self) -> None:
        """Connect and wait for the broker's consent; an open connection is closed first.

        Raises:
            BrokerUnreachable: Nobody answers there, or the broker refuses us.
            CommandFailed: The broker would give us the session of another client, such as the daemon.
        """
        versions = {"auto": ("5", "3.1.1")}.get(self._address.protocol, (self._address.protocol,))
        for version in versions:
            self.close()
            reason = self._attempt(version)
            if reason is None:
                self.protocol = version
                return
            refused = self._verdict is not None and "protocol" not in str(self._verdict).lower()
            if refused or version == versions[-1]:
                self.close()
                raise BrokerUnreachable(*self._explain(reason))

    def subscribe(self, filters: Sequence[str], *, qos: int = 1) -> None:
        """Subscribe and wait for the broker's answer.

        Raises:
            CommandFailed: The broker's access list refuses one of them.
            BrokerUnreachable: The connection ended, or no answer came in time.
        """
        mid = self._sent(self._client().subscribe([(topic, qos) for topic in filters]))
        for topic, code in zip(filters, self._answer(mid), strict=False):
            if code.is_failure:
                raise CommandFailed(
                    f"The broker does not let us read {topic} ({code}).",
                    "Its access list must allow this user to read it; see the sample configuration.",
                )

    def barrier(self) -> None:
        """Return when everything that the broker sent before now has been taken in.

        The acknowledgement of an UNSUBSCRIBE that changes nothing comes after the retained messages of
        earlier subscriptions.

        Raises:
            BrokerUnreachable: The connection ended, or no answer came in time.
        """
        self._answer(self._sent(self._client().unsubscribe(f"{self._address.base}/barrier")))

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, content_type: str | None = None) -> None:
        """Send a message; with QoS 1 wait until the broker has it.

        Raises:
            CommandFailed: The broker's access list refuses it (only MQTT 5 says so).
            BrokerUnreachable: The connection ended, or no answer came in time.
        """
        properties = None
        if content_type is not None and self.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's own gap
            properties.ContentType = content_type
        receipt = self._client().publish(topic, payload, qos=qos, properties=properties)
        if receipt.rc == MQTTErrorCode.MQTT_ERR_PAYLOAD_SIZE:
            raise CommandFailed("The prompt is larger than MQTT can carry.")
        mid = self._sent((receipt.rc, receipt.mid))
        if qos == 0:
            return
        codes = self._answer(mid)
        if codes and codes[0].is_failure:
            raise CommandFailed(
                f"The broker does not let us publish on {topic} ({codes[0]}).",
                "Its access list must allow this user to write there; see the sample configuration.",
            )

    def pump(self, timeout_s: float, *also: Waitable) -> list[Message]:
        """Return the messages that arrived; wait at most `timeout_s` for the first, or for one of `also`.

        Raises:
            ConnectionLost: The connection has ended and all messages were returned.
        """
        if self._lost is None and not self._inbox:
            self._turn(timeout_s, also)
        messages = list(self._inbox)
        self._inbox.clear()
        if not messages and self._lost is not None:
            raise ConnectionLost(f"The connection to the broker at {self._address} ended: {self._lost}.")
        return messages

    def close(self) -> None:
        """Say good-bye and close; does nothing when it is closed."""
        client, self._paho = self._paho, None
        self._inbox.clear()
        self._answers.clear()
        if client is not None:
            _hang_up(client)

    def _attempt(self, version: str) -> str | None:
        """Return None once connected, else why not."""
        if self._address.username is not None:
            reason = self._connect(version, clean=False)
            if reason is not None:
                return reason
            self._leave_first_look(version)
        return self._connect(version, clean=True)

    def _leave_first_look(self, version: str) -> None:
        client, self._paho = self._paho, None
        if client is not None and version == "5":
            properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call] # paho's own gap
            properties.SessionExpiryInterval = _NOT_OURS_S if self._session_present else 0
            _hang_up(client, properties)
        elif client is not None:
            _hang_up(client)
        if self._session_present:
            raise CommandFailed(
                f"The broker at {self._address} takes us for a client that is there already: "
                f"each needs a user name of its own, and {self._address.username!r} is taken.",
                "Name one for the commands with `mqtt.commands_username`, or with --username.",
            )

    def _connect(self, version: str, *, clean: bool) -> str | None:
        """Return None once connected, else why not; the first look is not `clean` and acknowledges none."""
        protocol = MQTTProtocolVersion.MQTTv5 if version == "5" else MQTTProtocolVersion.MQTTv311
        self._verdict, self._lost = None, None
        options: dict[str, Any] = {}
        if version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's own gap
            properties.SessionExpiryInterval = 0 if clean else _FIRST_LOOK_S
            options = {"clean_start": clean, "properties": properties}
        try:
            self._paho = client = self._build(protocol, clean=clean)
            host = self._address.path if self._address.transport == "unix" else self._address.host
            client.connect(host, self._address.effective_port, keepalive=KEEPALIVE_S, **options)
        except ssl.SSLError as exc:
            return f"TLS: {getattr(exc, 'verify_message', '') or exc.reason or exc}"
        except (OSError, ValueError) as exc:
            return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        return self._consent(self._address.timeout_s)

    def _consent(self, timeout_s: float) -> str | None:
        self._wait(lambda: self._verdict is not None, timeout_s)
        verdict = self._verdict
        if verdict is None:
            return self._lost or f"no answer within {timeout_s:g} s"
        return str(verdict) if verdict.is_failure else None

    def _build(self, protocol: MQTTProtocolVersion, *, clean: bool) -> paho.Client:
        address = self._address
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=protocol,
            transport=address.transport,
            clean_session=None if protocol == MQTTProtocolVersion.MQTTv5 else clean,
            reconnect_on_failure=False,
            manual_ack=not clean,
        )
        client.connect_timeout = address.timeout_s
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        if address.transport == "websockets":
            client.ws_set_options(path=address.path)
        if address.tls is not None:
            client.tls_set_context(tls_context(address.tls))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._note_answer(mid, codes)
        client.on_unsubscribe = lambda _c, _u, mid, codes, _p: self._note_answer(mid, codes)
        client.on_publish = lambda _c, _u, mid, code, _p: self._note_answer(mid, [code])
        client.on_socket_open = _send_at_once
        return client

    def _turn(self, timeout_s: float, also: Sequence[Waitable]) -> None:
        client = self._paho
        sock = client.socket() if client is not None else None
        if client is None or sock is None:
            self._lost = self._lost or "closed"
            return
        # TLS and websockets may hold decoded bytes that `select` on the socket cannot see.
        pending = getattr(sock, "pending", None)
        wait = 0.0 if pending is not None and pending() > 0 else max(0.0, timeout_s)
        writers = [sock] if client.want_write() else []
        readable, writable, _ = select.select([sock, *also], writers, [], wait)
        if sock in readable or (pending is not None and pending() > 0):
            client.loop_read()
        if sock in writable:
            client.loop_write()
        client.loop_misc()

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not done() and self._lost is None and time.monotonic() < end:
            self._turn(end - time.monotonic(), ())

    def _answer(self, mid: int) -> list[ReasonCode]:
        self._wait(lambda: mid in self._answers, ANSWER_TIMEOUT_S)
        if mid not in self._answers:
            reason = self._lost or f"no answer within {ANSWER_TIMEOUT_S:g} s"
            raise ConnectionLost(f"The connection to the broker at {self._address} ended: {reason}.")
        return self._answers.pop(mid)

    def _client(self) -> paho.Client:
        if self._paho is None or self._lost is not None:
            reason = self._lost or "it is closed"
            raise ConnectionLost(f"The connection to the broker at {self._address} ended: {reason}.")
        return self._paho

    def _sent(self, result: tuple[MQTTErrorCode, int | None]) -> int:
        code, mid = result
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            reason = self._lost or paho.error_string(code)
            raise ConnectionLost(f"The connection to the broker at {self._address} ended: {reason}.")
        return mid

    def _explain(self, reason: str) -> tuple[str, str]:
        code = self._verdict
        if code is None or not code.is_failure:
            hint = "Is it running? `rkllm-mqtt demo` starts one; --host and --port name another."
            return f"No broker answers at {self._address}: {reason}.", hint
        hint = "Give --username and --password-file." if "uthor" in reason or "user" in reason.lower() else ""
        return f"The broker at {self._address} refuses us: {reason}.", hint

    def _note_answer(self, mid: int, codes: Sequence[ReasonCode]) -> None:
        self._answers[mid] = list(codes)

    def _on_connect(
        self, _client: Any, _userdata: Any, flags: paho.ConnectFlags, reason: ReasonCode, _props: Any
    ) -> None:
        self._verdict, self._session_present = reason, bool(flags.session_present)

    def _on_disconnect(
        self, _client: Any, _userdata: Any, flags: paho.DisconnectFlags, reason: ReasonCode, _props: Any
    ) -> None:
        # Without a DISCONNECT packet there is no reason but the closed socket; paho calls it "unspecified".
        by_broker = flags.is_disconnect_packet_from_server
        self._lost = str(reason) if by_broker else "it was closed"

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._inbox.append(Message(topic, bytes(message.payload), bool(message.retain)))


def _hang_up(client: paho.Client, properties: Properties | None = None) -> None:
    client.on_disconnect = None
    client.disconnect(properties=properties)
    client.loop_misc()
    client._reset_sockets()  # noqa: SLF001 - paho offers no other way to close its socket


def _send_at_once(_client: Any, _userdata: Any, sock: Any) -> None:
    # With Nagle's algorithm on one side and delayed ACKs on the other a round trip takes 44 ms, not 0.2.
    if getattr(sock, "family", None) in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def members_of(payload: bytes) -> dict[str, Any]:
    """Return the JSON object of a payload; empty for anything else."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
