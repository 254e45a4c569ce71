"""One attempt of a job as its sender sees it: pieces of text in, deltas and progress out."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rkllm_mqtt.core.answers import delta, encode
from rkllm_mqtt.core.carried import Carried
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.deltas import Coalescer, Piece
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.mqtt.messages import Outbound

PROGRESS_S = 3.0
"""A sender that gets no token hears from us so often."""

Send = Callable[[Outbound], bool]

WirePiece = str | list[str] | dict[str, str]
"""A piece as the worker sends it: text, thoughts in a list of one, or a tool call with name and arguments."""


def publish_event(send: Send, job: Job, kind: str, *, n: int | None = None, **members: Any) -> None:
    """Publish an event of a job; senders of bare text get none. `n`: its number, when it has one already."""
    if job.request.text:
        return
    payload = {"type": kind, "n": job.next_event() if n is None else n, "id": job.id, **members}
    send(outbound(job.address, job.address.event, encode(payload), qos=1))


def outbound(
    address: Address, topic: str, payload: bytes, *, qos: int, content_type: str | None = None
) -> Outbound:
    """Return a message that carries what the request of this address wants echoed."""
    return Outbound(
        topic,
        payload,
        qos=qos,
        content_type=content_type,
        correlation_data=address.correlation_data,
        user_properties=address.user_properties,
    )


class Answer:
    """Collects one attempt; nothing is published before `open`, when the attempt is safe in the journal."""

    def __init__(self, job: Job, send: Send, *, interval_s: float) -> None:
        self._job = job
        self._send = send
        self._loop = asyncio.get_running_loop()
        carried = job.carried or Carried()
        self._coalescer = Coalescer(interval_s, next_seq=carried.deltas)
        self._text: list[str] = [carried.text]
        self._thinking: list[str] = [carried.thinking]
        self._held: list[tuple[str, str]] = []
        self._opened = False
        self._timer: asyncio.TimerHandle | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._topic = job.address.delta
        self.tool_calls: list[Mapping[str, Any]] = list(carried.tool_calls)
        """Calls so far, in the shape of the OpenAI API."""
        self.tokens = carried.tokens
        self.first_token_at: float | None = None
        """Of this run; seconds of the event loop's clock."""

    @property
    def text(self) -> str:
        """Return the answer so far."""
        return "".join(self._text)

    @text.setter
    def text(self, text: str) -> None:
        """Replace the answer, of which no delta was published."""
        self._text = [text]

    @property
    def thinking(self) -> str:
        """Return the thoughts so far."""
        return "".join(self._thinking)

    @property
    def deltas(self) -> int:
        """Return how many deltas were published."""
        return self._coalescer.next_seq

    def take(self, pieces: Sequence[WirePiece], tokens: int) -> None:
        """Take the pieces of a frame; called for each token at the pace of an NPU."""
        if self.first_token_at is None:
            self.first_token_at = self._loop.time()
        self.tokens = tokens
        self.tool_calls += [_call(piece) for piece in pieces if isinstance(piece, dict)]
        parts = [_part(piece) for piece in pieces if not isinstance(piece, dict)]
        if parts:
            self._show(parts)

    def open(self, *, started_at: float, prefill_s: float | None) -> None:
        """Publish what is there and all that follows; begin to tell the progress while nothing comes."""
        self._opened = True
        held, self._held = self._held, []
        self._publish(held)
        if self.first_token_at is None:
            self._arm_progress(started_at, prefill_s)

    def close(self) -> None:
        """The attempt is over: publish what was held back, stop the clocks."""
        if self._opened and self._job.request.stream:
            self._emit(self._coalescer.flush(self._loop.time()))
        self.drop()

    def drop(self) -> None:
        """The attempt is void or over: stop the clocks."""
        for timer in (self._timer, self._progress):
            if timer is not None:
                timer.cancel()

    def _show(self, parts: Sequence[tuple[str, str]]) -> None:
        for kind, text in parts:
            (self._thinking if kind == "thinking" else self._text).append(text)
        if self._opened:
            self._publish(parts)
        else:
            self._held.extend(parts)

    def _publish(self, parts: Sequence[tuple[str, str]]) -> None:
        if not self._job.request.stream:
            return
        now = self._loop.time()
        for kind, text in parts:
            self._emit(self._coalescer.feed(kind, text, now))
        due = self._coalescer.due_at
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._flush_due)

    def _flush_due(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = self._coalescer.due_at
        if due is not None and due > now:
            self._timer = self._loop.call_at(due, self._flush_due)
        elif due is not None:
            self._emit(self._coalescer.flush(now))

    def _emit(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            payload = delta(self._job.id, self._job.attempt, piece.seq, piece.kind, piece.text)
            self._send(outbound(self._job.address, self._topic, payload, qos=0))

    def _arm_progress(self, started_at: float, prefill_s: float | None) -> None:
        self._progress = self._loop.call_later(PROGRESS_S, self._tell_progress, started_at, prefill_s)

    def _tell_progress(self, started_at: float, prefill_s: float | None) -> None:
        if self.first_token_at is not None:
            return
        elapsed = self._loop.time() - started_at
        eta = None if prefill_s is None else round(max(0.0, prefill_s - elapsed), 1)
        publish_event(
            self._send, self._job, "progress", phase="prefill", elapsed_s=round(elapsed, 1), eta_s=eta
        )
        self._arm_progress(started_at, prefill_s)


def _call(piece: Mapping[str, str]) -> Mapping[str, Any]:
    # Nine letters and digits: Mistral's published templates take no other id.
    function = {"name": piece["name"], "arguments": piece["arguments"]}
    return {"id": uuid.uuid4().hex[:9], "type": "function", "function": function}


def _part(piece: str | list[str]) -> tuple[str, str]:
    if isinstance(piece, str):
        return "text", piece
    (thought,) = piece
    if not isinstance(thought, str):  # else it would fail much later, when a delta is joined
        raise TypeError("a piece is no text")
    return "thinking", thought
