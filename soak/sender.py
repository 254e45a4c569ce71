"""One of the senders of a soak: asks, waits for the outcome, resends after trouble, asks again."""

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass, field

from bench.wire import Message, Wire

NODE = "soak"
_PROMPTS = (
    "Tell me a story of 12 words",
    "say: the kitchen light is on",
    "count to 9",
    "hello",
    "What is 2+3?",
)


@dataclass(slots=True)
class Tally:
    """What all senders together have seen."""

    answered: int = 0
    resent: int = 0
    broken: list[str] = field(default_factory=list)
    """Promises that were not kept."""


class Sender:
    """One client with one prompt at a time."""

    def __init__(self, name: str, port: int, speed: float, tally: Tally) -> None:
        """Keep the arguments; `speed` divides every wait."""
        self._mailbox = f"rkllm/{NODE}/client/sender-{name}"
        self._name = f"soak-sender-{name}"
        self._port = port
        self._speed = speed
        self._tally = tally
        self._chance = random.Random(name)
        self._wire: Wire | None = None
        self._outcomes: dict[str, bytes] = {}
        self._came = asyncio.Event()

    async def run(self, closing: asyncio.Event) -> None:
        """Ask one prompt after the other until `closing`; the last one is waited for."""
        number = 0
        while not closing.is_set():
            number += 1
            await self.ask(f"q{number}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), self._chance.uniform(0, 4) / self._speed)
        await self.close()

    async def close(self) -> None:
        """Disconnect."""
        if self._wire is not None:
            with contextlib.suppress(ConnectionError):
                await self._wire.close()

    async def ask(self, request_id: str) -> None:
        """Ask one prompt, whatever happens to the connection, until its outcome is there."""
        request = {
            "prompt": self._chance.choice(_PROMPTS),
            "stream": self._chance.random() < 0.5,
            "priority": self._chance.choice(("interactive", "normal", "background")),
            "max_tokens": 40,
        }
        payload, sent = json.dumps(request).encode(), 0
        while request_id not in self._outcomes:
            try:
                wire = await self._connected()
                wire.publish([(f"{self._mailbox}/request/{request_id}", payload)])
            except (ConnectionError, OSError):
                await asyncio.sleep(0.2)
                continue
            self._tally.resent += sent > 0
            sent += 1
            await self._outcome_or_loss(request_id, wire)
        self._judge(request_id, self._outcomes[request_id])

    async def _connected(self) -> Wire:
        if self._wire is None or self._wire.lost.done():
            self._wire = await Wire.open(self._port, self._name, self._take)
            await self._wire.subscribe([f"{self._mailbox}/{kind}/+" for kind in ("event", "delta", "reply")])
        return self._wire

    async def _outcome_or_loss(self, request_id: str, wire: Wire) -> None:
        """Wait for the outcome; not longer than it is worth to send the prompt again."""
        loop = asyncio.get_running_loop()
        until = loop.time() + max(20.0, 120 / self._speed)
        while request_id not in self._outcomes and not wire.lost.done() and loop.time() < until:
            self._came.clear()
            came = asyncio.create_task(self._came.wait())
            first: set[asyncio.Future[object]] = {came, wire.lost}  # type: ignore[arg-type]
            await asyncio.wait(first, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            came.cancel()

    def _take(self, message: Message) -> None:
        _, kind, request_id = message.topic.rsplit("/", 2)
        if kind != "reply":
            return
        earlier = self._outcomes.get(request_id)
        if earlier is not None and earlier != message.payload:
            self._tally.broken.append(f"{self._name} {request_id}: two different outcomes")
        self._outcomes = {request_id: message.payload}
        self._came.set()

    def _judge(self, request_id: str, outcome: bytes) -> None:
        final = json.loads(outcome)
        self._tally.answered += 1
        if final["status"] != "ok" or final["id"] != request_id or not final["text"]:
            self._tally.broken.append(f"{self._name} {request_id}: {final.get('error') or final}")
