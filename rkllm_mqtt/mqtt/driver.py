"""Run one paho client over one link on the asyncio event loop, without a thread.

Rule 1: all reading and writing is done here, in callbacks of the loop; nothing enters paho from inside paho.
Rule 2: the first packet of a turn of the loop leaves at once; all that follow in this turn, in one piece at
its end.
Rule 3: a connection ends once: the first reason is the one that counts.
"""

import asyncio
import contextlib
from collections.abc import Callable

from paho.mqtt.exception import MalformedPacket

from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.client import PahoClient
from rkllm_mqtt.mqtt.link import Link
from rkllm_mqtt.mqtt.loss import Loss, reason_of
from rkllm_mqtt.mqtt.packets import PINGREQ

log = get_logger(__name__)

GARBLED = "the broker sent a packet that cannot be understood"
READ_PASSES = 256
"""Calls of paho's reader, each at least one packet, before others get their turn of the loop."""


class Driver:
    """One link from CONNECT to its end; call `close` at the end, whoever ended it."""

    def __init__(self, client: PahoClient, link: Link, on_read: Callable[[], None]) -> None:
        """Prepare; `on_read` is called after paho has taken in what arrived, outside of its callbacks."""
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._link = link
        self._on_read = on_read
        self._attached = False
        self._flush_due = False
        self._writer_on = False
        self._paused = False
        self._read_again_at = 0.0
        self._pinged_at = 0.0
        self.lost: asyncio.Future[Loss] = self._loop.create_future()

    def start(self) -> None:
        """Send CONNECT and listen."""
        self._attached = True
        self._client.on_socket_register_write = lambda *_: self._flush_soon()
        self._client.on_socket_close = lambda _client, _userdata, sock: self._closing(sock)
        self._client.connect_over(self._link)
        self._loop.add_reader(self._link.fileno(), self._readable)

    @property
    def unsent(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        return self._link.unsent

    def write(self, packet: bytes) -> None:
        """Send a whole packet of our own making, after all that paho has queued."""
        if not self._attached:
            return
        self._client.write_to_link()
        self._link.send(packet)
        if self._flush_due or self._writer_on:
            return
        # A token at the pace of an NPU is alone in its turn, and need not wait for the next.
        with contextlib.suppress(OSError):  # `_flush` meets it again, outside of whatever called us
            self._link.flush()
        self._flush_soon()

    def pause(self) -> None:
        """Stop reading; the broker feels it through TCP."""
        if not self._paused and self._attached:
            self._paused = True
            self._loop.remove_reader(self._link.fileno())

    def resume(self) -> None:
        """Read again, first what had been read ahead."""
        if self._paused and self._attached:
            self._paused = False
            self._read_again_at = self._loop.time()
            self._loop.add_reader(self._link.fileno(), self._readable)
            self._loop.call_soon(self._readable)

    def tick(self) -> None:
        """Keep the connection alive; call about once a second.

        While reading is paused, and for one keepalive after, a PINGRESP may lie behind unread messages: paho
        would take its absence for a dead broker. We ping on our own then, and do not count answers.
        """
        if not self._attached:
            return
        keepalive_s, now = self._client.keepalive, self._loop.time()
        if self._paused or now < self._read_again_at + keepalive_s:
            if keepalive_s and now - self._pinged_at >= keepalive_s / 2:
                self._pinged_at = now
                self.write(PINGREQ)
            return
        self._client.loop_misc()

    def lose(self, loss: Loss) -> None:
        """Note why the connection ended; only the first call counts."""
        if not self.lost.done():
            self.lost.set_result(loss)

    def close(self) -> None:
        """Release the link; what was not sent is gone."""
        self._detach()
        self._link.close()
        self.lose(Loss("closed by us"))

    def broken(self) -> str | None:
        """Return what broke the link, when the operating system or TLS said so."""
        return None if self._link.error is None else reason_of(self._link.error)

    def _readable(self) -> None:
        if self._paused or not self._attached:
            return
        self._take_in()
        if self._attached and not self._paused and self._link.buffered:
            self._loop.call_soon(self._readable)  # no event will announce what is already on our side

    def _take_in(self) -> None:
        try:
            for _ in range(READ_PASSES):
                self._client.loop_read()
                if not self._attached or not self._link.buffered:
                    break
        except MalformedPacket:
            self.lose(Loss(GARBLED, closed=True))
        except Exception as exc:  # paho met bytes that it cannot digest; a new connection helps
            log.exception("packet_not_understood")
            self.lose(Loss(f"a packet could not be understood: {type(exc).__name__}"))
        self._on_read()

    def _flush_soon(self) -> None:
        if not self._flush_due and not self._writer_on and self._attached:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if not self._attached:
            return
        self._client.write_to_link()
        try:
            done = self._link.flush()
        except OSError as exc:
            self._take_in()  # the broker may have said why before it closed
            self.lose(Loss(reason_of(exc), closed=True))
            return
        if done and self._writer_on:
            self._writer_on = False
            self._loop.remove_writer(self._link.fileno())
        elif not done and not self._writer_on:
            self._writer_on = True
            self._loop.add_writer(self._link.fileno(), self._flush)

    def _closing(self, sock: object) -> None:
        if sock is self._link:  # paho also closes the link of an earlier connection, when it begins a new one
            self._detach()

    def _detach(self) -> None:
        if self._attached:
            self._attached = False
            self._loop.remove_reader(self._link.fileno())
            self._loop.remove_writer(self._link.fileno())
