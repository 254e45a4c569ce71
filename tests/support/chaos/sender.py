"""A sender as protocol 1.0 wants it: resends until `accepted`, then waits for the outcome and asks again.

Written against the protocol alone. What it receives is recorded beside what the observer hears: a message
that the observer missed is no lost one.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable

from chaos.answers import is_outcome
from chaos.packets import Publication
from chaos.prompts import Prompt
from chaos.recording import Recording, Said
from chaos.wire import Wire, now

_RESEND_S = 1.5
_ASK_AGAIN_S = 6.0
"""After `accepted`; the outcome may have been lost with a broker that forgot it."""
_LOOK_S = 0.05
_RETRY_S = 0.4


class Sender:
    """One client with some requests under way."""

    def __init__(
        self,
        name: str,
        port: int,
        recording: Recording,
        draw: Callable[[str], Prompt | None],
        rng: random.Random,
        *,
        under_way: int,
        pause_s: float,
    ) -> None:
        """Keep the arguments.

        Args:
            name: Its client name.
            port: Where it connects.
            recording: Takes what it asks and receives.
            draw: Returns its next request; None when there is none.
            rng: For its pauses.
            under_way: Requests without outcome at most.
            pause_s: Mean pause before another request.
        """
        self.name = name
        self._port = port
        self._recording = recording
        self._draw = draw
        self._rng = rng
        self._under_way = under_way
        self._pause_s = pause_s
        self._box = f"rkllm/{recording.node}/client/{name}"
        self._waiting: dict[str, Prompt] = {}
        self._next_at = 0.0
        self._number = 0
        self._wire: Wire | None = None
        self.resent = 0
        self.finished = 0

    @property
    def unanswered(self) -> int:
        """Return how many requests have no outcome yet."""
        return len(self._waiting)

    async def run(self) -> None:
        """Ask and ask again; cancelled by who started it."""
        try:
            while True:
                with contextlib.suppress(OSError):
                    await self._while_connected()
                await asyncio.sleep(self._rng.uniform(0.05, 0.3))
        finally:
            if self._wire is not None:
                self._wire.close()

    async def _while_connected(self) -> None:
        self._number += 1
        filters = tuple(f"{self._box}/{kind}/#" for kind in ("event", "reply"))
        self._wire = wire = await Wire.open(self._port, f"{self.name}-{self._number}", self._take, filters)
        for prompt in self._waiting.values():
            if prompt.accepted_at is not None and prompt.last_sent_at is not None:
                prompt.last_sent_at = min(prompt.last_sent_at, now() - _ASK_AGAIN_S + 1)
        while not wire.lost.done():
            self._ask(wire)
            await asyncio.wait({wire.lost}, timeout=_LOOK_S)

    def _ask(self, wire: Wire) -> None:
        at = now()
        if len(self._waiting) < self._under_way and at >= self._next_at:
            prompt = self._draw(self.name)
            if prompt is not None:
                prompt.asked.first_at = at
                self._waiting[prompt.asked.id] = prompt
                self._recording.asked.append(prompt.asked)
            self._next_at = at + self._rng.expovariate(1 / self._pause_s)
        for prompt in self._waiting.values():
            patience_s = _RESEND_S if prompt.accepted_at is None else _ASK_AGAIN_S
            last = prompt.last_sent_at
            if at >= prompt.not_before and (last is None or at - last >= patience_s):
                self.resent += last is not None
                prompt.last_sent_at = at
                wire.publish(f"{self._box}/request/{prompt.asked.id}", prompt.payload)
            self._maybe_cancel(wire, prompt, at)

    def _maybe_cancel(self, wire: Wire, prompt: Prompt, at: float) -> None:
        since = prompt.started_at if prompt.cancel_started else prompt.accepted_at
        if prompt.cancel_after_s is None or since is None:
            return
        sent = prompt.cancel_sent_at
        if at - since >= prompt.cancel_after_s and (sent is None or at - sent >= _RESEND_S):
            prompt.cancel_sent_at = at
            wire.publish(f"{self._box}/cancel/{prompt.asked.id}", b"")

    def _take(self, message: Publication) -> None:
        at, payload = now(), message.payload.decode(errors="backslashreplace")
        self._recording.said.append(Said(at, message.topic, payload, message.retain, observer=False))
        kind, _, request_id = message.topic.removeprefix(f"{self._box}/").partition("/")
        prompt = self._waiting.get(request_id)
        if prompt is None:
            return
        if kind == "reply":
            if is_outcome(payload, text=prompt.asked.text):
                prompt.received = payload
                self.finished += 1
                del self._waiting[request_id]
            else:
                self._refused(prompt, at)
            return
        event = json.loads(payload)
        if event["type"] == "accepted" and prompt.accepted_at is None:
            prompt.accepted_at = at
        elif event["type"] == "started" and prompt.started_at is None:
            prompt.started_at = at
        elif event["type"] == "rejected":
            self._refused(prompt, at)

    def _refused(self, prompt: Prompt, at: float) -> None:
        prompt.not_before = at + _RETRY_S
        prompt.last_sent_at = None if prompt.accepted_at is None else prompt.last_sent_at
