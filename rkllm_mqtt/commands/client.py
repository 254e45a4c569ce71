"""A small client of protocol 1.0: find the daemon, ask it something, follow the answer to its end.

Order: subscribe, then ask; ask again with the same id until the daemon says `accepted`, and after every
lost connection. The same id with the same bytes runs once, so asking again is always safe.
"""

import getpass
import json
import os
import re
import secrets
import select
import time
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from rkllm_mqtt.commands.client_address import BrokerAddress
from rkllm_mqtt.commands.client_connection import Connection, ConnectionLost, Waitable, members_of
from rkllm_mqtt.commands.client_exchange import Changed, Exchange, Finished, Stage, Step
from rkllm_mqtt.commands.failure import BrokerUnreachable, DaemonUnavailable
from rkllm_mqtt.core.topics import Mailbox, is_client

TICK_S = 0.2
"""How often a screen gets the chance to move its clock."""
RESEND_FIRST_S = 2.0
RESEND_MAX_S = 30.0
RECONNECT_FIRST_S = 0.5
RECONNECT_MAX_S = 8.0
_RETAINED_GRACE_S = 1.0
"""Some brokers deliver retained messages later than the answer to what was asked after them."""


def own_name(address: BrokerAddress) -> str:
    """Return the `<client>` level we use: the broker user where it fits, as access lists bind it."""
    if address.username is not None and is_client(address.username):
        return address.username
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"cli-{user}")[:64]


def new_id() -> str:
    """Return an id for a request that nobody else uses."""
    return secrets.token_hex(6)


def open_node(address: BrokerAddress) -> tuple[Connection, str]:
    """Connect, and return the connection and the node to speak with.

    Raises:
        BrokerUnreachable: No broker there.
        DaemonUnavailable: No daemon, or more than one, and none was named.
    """
    connection = Connection(address)
    try:
        connection.open()
        return connection, address.node or find_node(connection, address)
    except BaseException:
        connection.close()
        raise


def find_node(connection: Connection, address: BrokerAddress) -> str:
    """Return the only daemon that is online, or the only one known at all.

    Raises:
        DaemonUnavailable: There is none, or it is not clear which.
    """
    topic = f"{address.base}/+/status"
    connection.subscribe([topic])
    connection.barrier()
    states: dict[str, str] = {}
    end = time.monotonic() + _RETAINED_GRACE_S
    while True:
        for message in connection.pump(0.0 if states else max(0.0, end - time.monotonic())):
            levels = message.topic.split("/")
            if len(levels) == 3 and levels[2] == "status":
                states[levels[1]] = message.payload.decode("utf-8", "replace")
        if states or time.monotonic() >= end:
            break
    online = sorted(node for node, state in states.items() if state == "online")
    if len(online) == 1 or (not online and len(states) == 1):
        return online[0] if online else next(iter(states))
    if not states:
        raise DaemonUnavailable(
            f"No rkllm-mqtt daemon has shown itself under {topic} at {address}.",
            "Start one with `rkllm-mqtt run`, or `rkllm-mqtt demo` to try it.",
        )
    names = ", ".join(online or sorted(states))
    what = "online" if online else "known, all offline"
    raise DaemonUnavailable(f"Several daemons are {what} at {address}: {names}.", "Name one with --node.")


def read_status(connection: Connection, address: BrokerAddress, node: str) -> str:
    """Return what the node's retained status says; empty when it has none."""
    topic = f"{address.base}/{node}/status"
    connection.subscribe([topic])
    connection.barrier()
    found = [m.payload.decode("utf-8", "replace") for m in connection.pump(0.0) if m.topic == topic]
    return found[-1] if found else ""


def require_online(connection: Connection, address: BrokerAddress, node: str) -> None:
    """Check that somebody will obey.

    Raises:
        DaemonUnavailable: The node's retained status says that it is offline, or it has none.
    """
    if read_status(connection, address, node) != "online":
        raise DaemonUnavailable(f"The daemon {node!r} is offline.", "`rkllm-mqtt run` starts it.")


class BackOff(Struct):
    """Times of attempts that lie further and further apart."""

    first_s: float
    longest_s: float
    due: float = 0.0
    """Monotonic seconds; when the next attempt may be made."""
    pause_s: float = 0.0

    def used(self, now: float) -> None:
        """Note that an attempt was made at `now`."""
        self.pause_s = min(self.longest_s, self.pause_s * 2 or self.first_s)
        self.due = now + self.pause_s


class Asking:
    """One request on its way: `steps` drives it, `cancel` ends it early."""

    def __init__(self, mailbox: Mailbox, request_id: str, body: bytes) -> None:
        self.exchange = Exchange(request_id)
        self.daemon_online: bool | None = None
        """What the retained status says; None while it says nothing."""
        self.queue_state = ""
        """What the retained queue says: idle, busy, paused or draining."""
        self.broker_lost = False
        """The connection ended; it is being opened again."""
        self.sent = 0
        """How often the request was published."""
        self.mailbox = mailbox
        self._body = body
        self._cancelled = False
        self._resend = BackOff(RESEND_FIRST_S, RESEND_MAX_S)
        self._reopen = BackOff(RECONNECT_FIRST_S, RECONNECT_MAX_S)

    def begin(self, connection: Connection) -> None:
        """Subscribe to the answers, then send the request.

        Raises:
            CommandFailed: The broker refuses a topic, or is gone.
        """
        kinds = ("event", "delta", "reply")
        filters = [self.mailbox.topic(kind, self.exchange.id) for kind in kinds]
        connection.subscribe([*filters, self._state("status"), self._state("queue")])
        self._send(connection)

    def steps(self, connection: Connection, wake: Waitable) -> Iterator[Step | None]:
        """Yield what happens until `Finished`; None when `TICK_S` passed or `wake` became readable.

        A lost connection is opened again for as long as the caller goes on.

        Raises:
            CommandFailed: The broker refuses a topic after a reconnect.
        """
        while self.exchange.stage is not Stage.DONE:
            if self.broker_lost and not self._reconnect(connection):
                wait_for(wake, TICK_S)
                yield None
                continue
            try:
                yield from self._taken(connection, wake)
                if not self.exchange.accepted and time.monotonic() >= self._resend.due:
                    self._send(connection)
            except ConnectionLost:
                self.broker_lost = True
                yield Changed()

    def cancel(self, connection: Connection) -> None:
        """Ask the daemon to stop; the final, `cancelled` or the real one, still comes.

        Raises:
            CommandFailed: The broker refuses the topic, or is gone.
        """
        self._cancelled = True
        connection.publish(self.mailbox.topic("cancel", self.exchange.id), self.exchange.id.encode())

    def _state(self, name: str) -> str:
        return f"{self.mailbox.base}/{self.mailbox.target}/{name}"

    def _send(self, connection: Connection) -> None:
        self._resend.used(time.monotonic())
        if self._cancelled:
            return
        topic = self.mailbox.topic("request", self.exchange.id)
        connection.publish(topic, self._body, content_type="application/json")
        self.sent += 1

    def _reconnect(self, connection: Connection) -> bool:
        if time.monotonic() < self._reopen.due:
            return False
        try:
            connection.open()
            self.begin(connection)
        except BrokerUnreachable:
            self._reopen.used(time.monotonic())
            return False
        self.broker_lost = False
        self._reopen.pause_s = 0.0
        return True

    def _taken(self, connection: Connection, wake: Waitable) -> Iterator[Step | None]:
        messages = connection.pump(TICK_S, wake)
        for message in messages:
            kind = message.topic.removeprefix(self.mailbox.prefix + "/").partition("/")[0]
            if message.topic == self._state("status"):
                self.daemon_online = message.payload == b"online"
                yield Changed()
            elif message.topic == self._state("queue"):
                self.queue_state = state_of(message.payload)
                yield Changed()
            elif kind == "event":
                yield from self.exchange.take_event(message.payload)
            elif kind == "delta":
                yield from self.exchange.take_delta(message.payload)
            elif kind == "reply":
                yield from self.exchange.take_reply(message.payload)
        if not messages:
            yield None


def state_of(queue: bytes) -> str:
    """Return the state that a retained queue tells; empty where it tells none."""
    state = members_of(queue).get("state")
    return state if isinstance(state, str) else ""


def outcome_of(step: Step | None) -> Mapping[str, Any] | None:
    """Return the final if this step is the end."""
    return step.final if isinstance(step, Finished) else None


def wait_for(wake: Waitable, timeout_s: float) -> None:
    """Return when `wake` is readable or the time has passed."""
    select.select([wake], [], [], timeout_s)


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a request's body; the same mapping gives the same bytes, as duplicates are told by them."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
