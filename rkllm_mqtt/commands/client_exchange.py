"""Put the messages of one request together: pure, messages go in and steps for a screen come out.

Rule 1: no order holds between events, deltas and the final; each is taken as it comes.
Rule 2: of two deltas with one `seq` the one of the higher attempt counts; lower attempts are ignored.
Rule 3: the final ends it; its text is the truth wherever a delta is missing.
"""

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import Struct


class Piece(Struct, frozen=True):
    """Text to append to what was shown."""

    kind: str
    """`text` or `thinking`."""
    text: str


class Voided(Struct, frozen=True):
    """Everything shown so far is void; what is still valid follows as pieces."""

    restarted: bool
    """True: another attempt runs. False: the final differs from the deltas we saw."""


class Changed(Struct, frozen=True):
    """The stage, the place in the queue or the like is another one now."""


class Finished(Struct, frozen=True):
    """The outcome; nothing follows."""

    final: Mapping[str, Any]
    payload: bytes
    """As it arrived."""


Step = Piece | Voided | Changed | Finished


class Stage(Enum):
    """How far a request is, as far as its sender knows."""

    SENT = "sent"
    WAITING = "waiting"
    RUNNING = "running"
    """Started, no token yet."""
    ANSWERING = "answering"
    DONE = "done"


class Exchange:
    """One request and all that came back for it."""

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.stage = Stage.SENT
        self.accepted = False
        """The daemon has it safe on disk: it need not be sent again."""
        self.position: int | None = None
        """Place in the queue, from 1."""
        self.queue_length: int | None = None
        self.eta_s: float | None = None
        self.phase = ""
        """What the slot does before the first token, as the daemon calls it."""
        self.phase_s = 0.0
        """How long it does so, as of the last event."""
        self.ignored: list[str] = []
        """Fields of the request that the daemon does not honour."""
        self.priority = ""
        """The class it waits in, which may be lower than asked."""
        self._started_n: int | None = None
        """The number of the event `started`; the numbers of a request's events rise."""
        self._attempt = 0
        self._deltas: dict[int, tuple[int, str, str]] = {}
        self._shown = 0  # the deltas 0 .. _shown - 1 were given out as pieces
        self._text = ""

    def take_event(self, payload: bytes) -> list[Step]:
        """Take a message of the event topic."""
        event = _parse(payload)
        if event is None or self.stage is Stage.DONE:
            return []
        kind = event.get("type")
        if kind == "restarted":
            return self._restart(event)
        if kind == "accepted":
            self._accept(event)
        elif kind == "position":
            if self._started_n is not None and (_whole(event.get("n")) or 0) > self._started_n:
                self.stage = Stage.WAITING  # it has given way to another
            self._enter(Stage.WAITING)
            self.position = _whole(event.get("position"))
            self.eta_s = _number(event.get("eta_s"))
        elif kind == "started":
            self.accepted, self._started_n = True, _whole(event.get("n"))
            self._enter(Stage.RUNNING)
            self.phase, self.phase_s, self.eta_s = "", 0.0, None
        elif kind == "progress":
            self._enter(Stage.RUNNING)
            self.phase = str(event.get("phase") or "")
            self.phase_s = _number(event.get("elapsed_s")) or 0.0
            self.eta_s = _number(event.get("eta_s"))
        else:
            return []  # `rejected` is followed by the final; unknown ones are of a later version
        return [Changed()]

    def take_delta(self, payload: bytes) -> list[Step]:
        """Take a message of the delta topic."""
        delta = _parse(payload)
        if delta is None or self.stage is Stage.DONE:
            return []
        attempt, seq = _whole(delta.get("attempt")) or 1, _whole(delta.get("seq"))
        kind = "thinking" if isinstance(delta.get("thinking"), str) else "text"
        text = delta.get(kind)
        if seq is None or seq < 0 or not isinstance(text, str) or attempt < self._attempt:
            return []
        steps: list[Step] = []
        if attempt > self._attempt:
            # The event `restarted` may come later: what the new attempt sends begins here or before.
            steps += self._void(attempt, seq)
        if seq not in self._deltas:
            self._deltas[seq] = (attempt, kind, text)
        self._enter(Stage.ANSWERING)
        return steps + self._contiguous()

    def take_reply(self, payload: bytes) -> list[Step]:
        """Take a message of the reply topic: the final."""
        final = _parse(payload)
        if final is None or self.stage is Stage.DONE:
            return []
        self.stage, self.accepted = Stage.DONE, True
        steps: list[Step] = []
        thinking, text = final.get("thinking"), final.get("text")
        if not self._deltas and isinstance(thinking, str) and thinking:
            steps.append(Piece("thinking", thinking))
        if isinstance(text, str):
            steps += self._settle(text, cut=final.get("truncated") is True)
        return [*steps, Finished(final, payload)]

    def _accept(self, event: Mapping[str, Any]) -> None:
        self.accepted = True
        self._enter(Stage.WAITING)
        ignored = event.get("ignored")
        self.ignored = [str(name) for name in ignored] if isinstance(ignored, list) else []
        self.priority = str(event.get("priority") or "")
        if self.stage is Stage.WAITING:
            self.position = _whole(event.get("position"))
            self.queue_length = _whole(event.get("queue_length"))
            self.eta_s = _number(event.get("eta_s"))

    def _restart(self, event: Mapping[str, Any]) -> list[Step]:
        attempt, first = _whole(event.get("attempt")), _whole(event.get("from_seq"))
        if attempt is None or first is None or attempt < self._attempt:
            return []
        steps = self._void(attempt, first)
        if not any(at == attempt for at, _, _ in self._deltas.values()):
            self.stage = Stage.RUNNING
            self.phase, self.phase_s, self.eta_s = "", 0.0, None
        return [*steps, *self._contiguous(), Changed()]

    def _void(self, attempt: int, first: int) -> list[Step]:
        """Forget the deltas of earlier attempts from `first` on; tell the screen if it shows one."""
        self._attempt = attempt
        void = [seq for seq, (at, _, _) in self._deltas.items() if at < attempt and seq >= first]
        seen = any(seq < self._shown for seq in void)
        for seq in void:
            del self._deltas[seq]
        if not seen:
            return []
        self._shown, self._text = 0, ""
        return [Voided(restarted=True)]

    def _contiguous(self) -> list[Step]:
        steps: list[Step] = []
        while self._shown in self._deltas:
            _, kind, text = self._deltas[self._shown]
            self._shown += 1
            if kind == "text":
                self._text += text
            steps.append(Piece(kind, text))
        return steps

    def _settle(self, text: str, *, cut: bool) -> list[Step]:
        if text.startswith(self._text):
            rest = text[len(self._text) :]
            return [Piece("text", rest)] if rest else []
        if cut and self._text.startswith(text):
            return []  # the final was cut to the bytes that its sender can take; the deltas say more
        return [Voided(restarted=False), Piece("text", text)]

    def _enter(self, stage: Stage) -> None:
        """Go on to `stage`, not back: an event may arrive after the deltas that follow it."""
        order = list(Stage)
        if order.index(stage) > order.index(self.stage):
            self.stage = stage


def _parse(payload: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
