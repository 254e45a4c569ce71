"""Talk to one daemon over Home Assistant's MQTT client: its state, and the answers of our mailbox.

Rule 1: topics are subscribed once, at the start; a request waits for nothing but its own messages.
Rule 2: a request ends in a final, a failure, or our cancel; a daemon that could not be told is told later.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from homeassistant.components import mqtt
from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.exceptions import ConfigEntryNotReady, HomeAssistantError
from homeassistant.util.ulid import ulid_now

from .answer import Answer, AnswerChanged
from .const import DOMAIN, LOGGER
from .failure import RkllmFailure, refused
from .protocol import (
    Delta,
    Event,
    Final,
    Info,
    Kind,
    parse_delta,
    parse_event,
    parse_final,
    parse_info,
    parse_running,
)

INFO_S = 4.0
"""Longest wait for the retained `info` at the start."""
RESEND_S = 2.0
FIRST_SIGN_S = 5.0
"""Without any message about a request: sent once more, then given up."""
QUIET_S = 5.0
"""While something runs the daemon publishes its queue every second: this silence means that it is gone."""
_MAX_PENDING_CANCELS = 50
_MAX_TOLD = 50
_LOOK_S = 0.5

type Message = Delta | Event | Final | RkllmFailure


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer."""

    text: str = ""
    thinking: str = ""
    position: int | None = None
    """Place in the queue, from 1."""
    final: Final | None = None
    """Set in the last piece only."""


@dataclass(slots=True)
class Counters:
    """What happened, for the diagnostics."""

    requests: int = 0
    answers: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    cancels: int = 0
    unknown_ids: int = 0
    unreadable: int = 0
    last_usage: dict[str, int] = field(default_factory=dict)


class RkllmClient:
    """One daemon, and our mailbox there."""

    def __init__(self, hass: HomeAssistant, topic: str, client: str) -> None:
        """Keep the arguments; `topic` is `<base>/<node>`."""
        self._hass = hass
        self._topic = topic
        self._mailbox = f"{topic}/client/{client}"
        self._unsubscribe: list[CALLBACK_TYPE] = []
        self._listeners: set[CALLBACK_TYPE] = set()
        self._flights: dict[str, asyncio.Queue[Message]] = {}
        self._to_cancel: dict[str, None] = {}
        self._told: dict[str, Callable[[], object]] = {}
        self._info_came = asyncio.Event()
        self._online = False
        self._connected = False
        self._was_available: bool | None = None
        self._running = False
        self._heard_at = 0.0
        self.info: Info | None = None
        self.on_prompt: Callable[[str, list[dict[str, Any]]], None] = lambda _name, _messages: None
        """Called with the agent and the messages of each of its questions."""
        self.counters = Counters()

    @property
    def available(self) -> bool:
        """Return whether a request can be answered now."""
        return self._connected and self._online and self.info is not None

    @property
    def known(self) -> Info:
        """Return the daemon's facts, which are there once `async_start` has returned."""
        assert self.info is not None
        return self.info

    async def async_start(self) -> None:
        """Subscribe, and wait for the daemon's facts.

        Raises:
            ConfigEntryNotReady: There are none: the daemon has never been at this broker, or not here.
        """
        # HA subscribes in batches: when the retained `info`, asked for last, is here, all others stand.
        for kind in Kind:
            await self._subscribe(f"{self._mailbox}/{kind}/+", self._take_answer)
        await self._subscribe(f"{self._topic}/queue", self._take_queue)
        await self._subscribe(f"{self._topic}/status", self._take_status)
        await self._subscribe(f"{self._topic}/info", self._take_info)
        self._unsubscribe.append(mqtt.async_subscribe_connection_status(self._hass, self._take_connection))
        self._connected = mqtt.is_connected(self._hass)
        try:
            async with asyncio.timeout(INFO_S):
                await self._info_came.wait()
        except TimeoutError as err:
            self.async_stop()
            raise ConfigEntryNotReady(
                translation_domain=DOMAIN,
                translation_key="no_info",
                translation_placeholders={"topic": f"{self._topic}/info"},
            ) from err

    @callback
    def async_stop(self) -> None:
        """Unsubscribe; what is in flight ends with a failure."""
        while self._unsubscribe:
            self._unsubscribe.pop()()
        self._fail_all("stopped")

    @callback
    def async_add_listener(self, listener: CALLBACK_TYPE) -> CALLBACK_TYPE:
        """Call `listener` when the availability or the facts change."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def stream(self, request: dict[str, Any], total_s: float) -> AsyncGenerator[Piece]:
        """Send a request and give out its answer as it comes; the last piece has the final.

        Closing the generator before that cancels the request.

        Raises:
            RkllmFailure: There is no answer, or it broke off.
        """
        if not self.available:
            raise self._count_failure(RkllmFailure("offline" if self._connected else "disconnected"))
        request_id = ulid_now()
        flight = self._flights[request_id] = asyncio.Queue()
        self.counters.requests += 1
        payload = json.dumps({**request, "stream": True}, ensure_ascii=False, separators=(",", ":"))
        ended = False
        try:
            self._send(request_id, payload)
            async for piece in self._pieces(flight, lambda: self._send(request_id, payload), total_s):
                ended = piece.final is not None
                yield piece
        except RkllmFailure as failure:
            ended = failure.code is not None
            raise self._count_failure(failure) from failure.__cause__
        finally:
            del self._flights[request_id]
            if not ended:
                self._cancel(request_id)

    async def ask(self, request: dict[str, Any], total_s: float) -> Final:
        """Send a request and return its final.

        Raises:
            RkllmFailure: There is none, or it is an error.
        """
        async with aclosing(self.stream(request, total_s)) as pieces:
            async for piece in pieces:
                if piece.final is not None:
                    return piece.final
        raise RkllmFailure("no_answer")

    @callback
    def tell(self, request: dict[str, Any], failed: Callable[[], object]) -> None:
        """Send a request whose answer nobody waits for; `failed` is called when the daemon refuses."""
        request_id = ulid_now()
        self._told[request_id] = failed
        if len(self._told) > _MAX_TOLD:
            del self._told[next(iter(self._told))]
        self._send(request_id, json.dumps(request, ensure_ascii=False, separators=(",", ":")))

    async def _pieces(
        self, flight: asyncio.Queue[Message], resend: Callable[[], None], total_s: float
    ) -> AsyncGenerator[Piece]:
        loop = self._hass.loop
        answer, began = Answer(), loop.time()
        heard, resent = False, False
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    message = await flight.get()
            except TimeoutError:
                waited = loop.time() - began
                self._check_silence(waited, heard, total_s)
                if not heard and not resent and waited > RESEND_S:
                    resent = True
                    resend()
                continue
            heard = True
            try:
                piece = _next_piece(answer, message)
            except AnswerChanged as err:
                raise RkllmFailure("answer_changed") from err
            if piece is not None:
                yield piece
                if piece.final is not None:
                    self.counters.answers += 1
                    self.counters.last_usage = dict(piece.final.usage)
                    return

    def _check_silence(self, waited: float, heard: bool, total_s: float) -> None:
        """Raise what a silence means.

        Raises:
            RkllmFailure: The daemon does not answer, or not in time.
        """
        if not heard and waited > FIRST_SIGN_S:
            raise RkllmFailure("no_answer")
        if self._running and self._hass.loop.time() - self._heard_at > QUIET_S:
            raise RkllmFailure("connection_lost")
        if waited > total_s:
            raise RkllmFailure("timeout")

    # messages

    async def _subscribe(self, topic: str, take: Callable[[mqtt.ReceiveMessage], None]) -> None:
        self._unsubscribe.append(await mqtt.async_subscribe(self._hass, topic, take, 0))

    @callback
    def _take_answer(self, message: mqtt.ReceiveMessage) -> None:
        self._heard_at = self._hass.loop.time()
        kind, request_id = message.topic.split("/")[-2:]
        flight = self._flights.get(request_id)
        if flight is None:
            self._take_unasked(kind, request_id, message.payload)
            return
        parsed: Message | None
        if kind == Kind.DELTA:
            parsed = parse_delta(message.payload)
        elif kind == Kind.EVENT:
            parsed = parse_event(message.payload)
        else:
            parsed = parse_final(message.payload) or RkllmFailure("unreadable")
        if parsed is None:
            # The final has the whole text; without it there would be nothing to go on with.
            self.counters.unreadable += 1
        else:
            flight.put_nowait(parsed)

    @callback
    def _take_unasked(self, kind: str, request_id: str, payload: str | bytes | bytearray) -> None:
        if request_id not in self._told:
            self.counters.unknown_ids += 1
        elif kind == Kind.REPLY:
            failed, final = self._told.pop(request_id), parse_final(payload)
            if final is None or final.error is not None:
                LOGGER.debug("Refused: %s", final and final.error)
                failed()

    @callback
    def _take_queue(self, message: mqtt.ReceiveMessage) -> None:
        self._heard_at = self._hass.loop.time()
        self._running = bool(parse_running(message.payload))

    @callback
    def _take_status(self, message: mqtt.ReceiveMessage) -> None:
        self._online = message.payload == "online"
        if not self._online:
            self._running = False
            self._fail_all("connection_lost")
        self._tell()

    @callback
    def _take_info(self, message: mqtt.ReceiveMessage) -> None:
        info = parse_info(message.payload)
        if info is None:
            self.counters.unreadable += 1
            return
        if self.info is not None and info.boot_id != self.info.boot_id:
            self._fail_all("restarted")
        changed, self.info = info != self.info, info
        self._info_came.set()
        if changed:
            self._tell(always=True)

    @callback
    def _take_connection(self, connected: bool) -> None:
        self._connected = connected
        if not connected:
            self._online = self._running = False  # told again by the retained `status`
            self._fail_all("disconnected")
        self._tell()

    @callback
    def _tell(self, *, always: bool = False) -> None:
        available = self.available
        if available != self._was_available:
            if self._was_available is not None or available:
                LOGGER.info("%s is %s", self._topic, "available" if available else "unavailable")
            self._was_available = available
        elif not always:
            return
        if available:
            pending, self._to_cancel = self._to_cancel, {}
            for request_id in pending:
                self._cancel(request_id)
        for listener in list(self._listeners):
            listener()

    @callback
    def _fail_all(self, key: str) -> None:
        for flight in self._flights.values():
            flight.put_nowait(RkllmFailure(key))

    def _count_failure(self, failure: RkllmFailure) -> RkllmFailure:
        name = failure.code or failure.key
        self.counters.failures[name] = self.counters.failures.get(name, 0) + 1
        return failure

    # publishing

    def _send(self, request_id: str, payload: str) -> None:
        """Publish without waiting for the PUBACK: the first deltas may be faster."""
        self._spawn(self._publish(f"{self._mailbox}/request/{request_id}", payload, request_id), "request")

    def _cancel(self, request_id: str) -> None:
        self.counters.cancels += 1
        if self.available:
            self._spawn(self._publish(f"{self._mailbox}/cancel/{request_id}", "{}", None), "cancel")
        else:
            self._to_cancel[request_id] = None
            if len(self._to_cancel) > _MAX_PENDING_CANCELS:
                del self._to_cancel[next(iter(self._to_cancel))]

    def _spawn(self, work: Any, name: str) -> None:
        # Not awaited by who asks, nor ended with the entry: it may be in the middle of being cancelled.
        self._hass.async_create_background_task(work, f"{DOMAIN} {name}")

    async def _publish(self, topic: str, payload: str, request_id: str | None) -> None:
        try:
            await mqtt.async_publish(self._hass, topic, payload, qos=1, retain=False)
        except HomeAssistantError as err:
            LOGGER.debug("Could not publish to %s: %s", topic, err)
            if request_id is not None and (flight := self._flights.get(request_id)) is not None:
                flight.put_nowait(RkllmFailure("disconnected"))


def _next_piece(answer: Answer, message: Message) -> Piece | None:
    """Return what a message adds to the answer; None when nothing.

    Raises:
        AnswerChanged: It contradicts what was given out.
        RkllmFailure: It is one, or an error of the daemon.
    """
    text = thinking = ""
    position: int | None = None
    final: Final | None = None
    match message:
        case RkllmFailure():
            raise message
        case Delta():
            text, thinking = answer.add(message)
        case Event(type="restarted"):
            text, thinking = answer.restart(message.attempt, message.from_seq)
        case Event(type="accepted" | "position"):
            position = message.position
        case Final():
            if message.error is not None:
                raise refused(message.error)
            text, thinking = answer.finish(message)
            final = message
        case _:
            return None
    if not text and not thinking and position is None and final is None:
        return None
    return Piece(text, thinking, position, final)
