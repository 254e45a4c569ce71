"""The daemon's view of one run: its clocks, its abort and its end."""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.runtime.frames import Frame
from rkllm_mqtt.runtime.order import RunOrder

_LARGEST = 2**53
"""Beyond this no number of a frame is true: neither tokens nor milliseconds."""


class EndReason(StrEnum):
    """Why a run ended."""

    STOP = "stop"
    LENGTH = "length"
    REPETITION = "repetition"
    ABORTED = "aborted"
    PREEMPTED = "preempted"
    """It gave way; what it has made is whole up to its last token."""
    REVOKED = "revoked"
    """It had not begun; nothing was computed."""
    CONTEXT = "context"
    """The prompt does not fit the model's window."""
    UNSUPPORTED = "unsupported"
    """What was to be read out cannot be: another attempt would end so too."""
    ADAPTER = "adapter"
    """The LoRA adapter cannot be loaded."""
    ERROR = "error"
    """The library refused or failed; it may go better next time."""


_WHOLE = (EndReason.STOP, EndReason.LENGTH, EndReason.REPETITION, EndReason.PREEMPTED)
"""All that was made belongs to the answer, also what came behind an abort."""
_LATE_S = 0.5
"""A timer that fires so late has waited with this whole process (SIGSTOP, suspend): the loop then runs it
before it has read what came meanwhile."""


class RunEnd(Struct, frozen=True):
    """What the worker said at the end of a run."""

    reason: EndReason
    tokens: int = 0
    run_ms: float = 0.0
    """From the entry into the library's run to its return; of a column of a batch, its share of that."""
    prefill_ms: float | None = None
    """From the entry to the first token."""
    generate_ms: float | None = None
    computed_tokens: int | None = None
    """Prompt tokens that were not in the KV cache; None where the runtime does not say."""
    chunks: tuple[tuple[int, float], ...] = ()
    """Computed tokens and milliseconds of each chunk of the prompt; the other figures contain them."""
    reuse: bool | None = None
    """Whether a chunk was computed on what the one before had left; None where there was no second one."""
    columns: int = 1
    """Runs that were computed together."""
    repeated: int = 0
    """Tokens that had been made before and were made again."""
    message: str = ""
    hint: str = ""
    reached: int = 0
    """Characters of the prompt that its chunks have computed; of a prime run that was not ended, all."""
    clean: bool = False
    """The library ended its last run by itself, and was not told to."""
    saved_bytes: int | None = None
    """Of the prompt-cache file that was asked for; None where there is none."""
    save_ms: float = 0.0
    """What it took to write it; `run_ms` contains it."""
    scores: tuple[tuple[float, float], ...] = ()
    """Of each option that was to be weighed: its natural log probability, its share among the options."""
    vectors: tuple[tuple[float, ...], ...] = ()
    """Of each text, of length 1."""
    found: CacheFacts | None = None
    """What a step of a probe has found; None for every other run."""
    written: str | None = None
    """What the model wrote in this run, thoughts and marks of calls included, up to the family's stop; None
    where it is the text that was shown, or the worker is gone."""

    @classmethod
    def of(cls, frame: Frame) -> "RunEnd":
        """Return the end that a `done` frame tells.

        Raises:
            ValueError, KeyError: A member is not what it should be: the worker is not to be trusted any more.
        """
        times = {name: _number(frame.get(name), name) for name in ("prefill_ms", "generate_ms")}
        computed = _number(frame.get("computed_tokens"), "computed_tokens")
        saved = None if frame.get("saved") is None else _pair(frame["saved"])
        return cls(
            EndReason(frame["reason"]),
            int(_number(frame.get("tokens"), "tokens") or 0),
            _number(frame.get("run_ms"), "run_ms") or 0.0,
            **times,
            computed_tokens=None if computed is None else int(computed),
            chunks=tuple(_pair(chunk) for chunk in frame.get("chunks", ())),
            reuse=frame.get("reuse"),
            columns=int(_number(frame.get("columns"), "columns") or 1),
            repeated=int(_number(frame.get("repeated"), "repeated") or 0),
            message=str(frame.get("message", "")),
            hint=str(frame.get("hint", "")),
            reached=int(_number(frame.get("reached"), "the end of a chunk") or 0),
            clean=frame.get("clean") is True,
            saved_bytes=saved[0] if saved else None,
            save_ms=saved[1] if saved else 0.0,
            scores=tuple((_real(log), _real(share)) for log, share in frame.get("scores", ())),
            vectors=tuple(tuple(map(_real, vector)) for vector in frame.get("vectors", ())),
            found=_facts(frame.get("found")),
            written=None if frame.get("written") is None else str(frame["written"]),
        )


class Restored(Struct, frozen=True):
    """What became of the load of a prompt-cache file."""

    ok: bool
    ms: float
    message: str = ""
    """Why it failed."""

    @classmethod
    def of(cls, frame: Frame) -> "Restored":
        """Return what a `restored` frame tells.

        Raises:
            ValueError, KeyError: A member is not what it should be.
        """
        ms = _number(frame.get("ms"), "the time of a load") or 0.0
        return cls(frame["ok"] is True, ms, str(frame.get("message", "")))


class Watch(Struct, frozen=True):
    """The clocks of a run, seconds."""

    silence_s: float
    """Longest silence between two tokens."""
    whole_s: float
    """Longest run."""
    grace_s: float
    """Wait after an abort, beside twice the prefill that may be left."""


class Run:
    """A run that was handed to the worker; ends exactly once."""

    def __init__(
        self,
        generation: int,
        order: RunOrder,
        watch: Watch,
        on_pieces: Callable[[Sequence[Any], int], None],
        command: Callable[[Frame], None],
        kill: Callable[[str], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.generation = generation
        self.order = order
        self.batch: int | None = None
        """The generation of the first column of its batch; None for a run of its own."""
        self.started: asyncio.Future[None] = loop.create_future()
        """Resolves when the worker enters the library; cancelled when it never does."""
        self.ended: asyncio.Future[RunEnd] = loop.create_future()
        """Resolves with the end, or raises SlotLost."""
        self.tokens = order.carried_tokens
        """Of the answer, those of earlier runs included."""
        self.raw: list[str] = []
        """The text that this run made, as the model made it."""
        self.started_at: float | None = None
        """Seconds of the event loop's clock."""
        self.stalled: str | None = None
        """Why the watch ended the run; None when it did not."""
        self.restored: Restored | None = None
        """How the load of its prompt-cache file went; None where it has none, or the load is not over."""
        self.timed_out = False
        """The watch ended it because the whole run took too long, not because the library was silent."""
        self._watch = watch
        self._on_pieces = on_pieces
        self._command = command
        self._kill = kill
        self._loop = loop
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._aborting = False
        self._behind_abort: list[Any] = []
        self._giving_way = False
        self._in_prefill = True

    @property
    def in_batch(self) -> bool:
        """Return whether it is a column of a batch."""
        return self.batch is not None

    @property
    def aborting(self) -> bool:
        """Return whether the worker was told to end the run."""
        return self._aborting

    @property
    def restoring(self) -> bool:
        """Return whether the library loads its prompt-cache file, or was lost in that."""
        return self.order.restore is not None and self.started_at is not None and self.restored is None

    @property
    def killed_by_restore(self) -> bool:
        """Return whether the worker was lost while it loaded this run's prompt-cache file."""
        if not self.restoring or not self.ended.done() or self.ended.cancelled():
            return False
        lost = self.ended.exception()
        return isinstance(lost, SlotLost) and not lost.deliberate

    def expect_start(self) -> None:
        """Nothing is before it in the worker any more: a worker that does not begin it now hangs."""
        if self.started_at is None and not self._aborting and not self.ended.done():
            self._arm(self._watch.silence_s)

    def overdue_s(self, now: float) -> float:
        """Return by how many seconds its clock has passed without an effect; 0 for a run that is in time."""
        if self._timer is None or self.ended.done():
            return 0.0
        return max(0.0, now - (self._due if self._aborting else min(self._due, self._ends_at)))

    def abort(self) -> None:
        """End the run after the step in progress; the worker is killed when that does not happen in time."""
        if self._aborting or self.ended.done():
            return
        self._aborting = True
        self._command({"op": "abort", "gen": self.generation})
        in_prefill = self._in_prefill and self.started_at is not None
        prefill_left = self.order.first_token_limit_s if in_prefill else 0.0
        self._arm(prefill_left + self._watch.grace_s)

    def give_way(self) -> None:
        """End the run with its next token, which is kept; in prefill with the chunk in progress."""
        if not self._aborting and not self._giving_way and not self.ended.done():
            self._giving_way = True
            self._command({"op": "give_way", "gen": self.generation})

    @property
    def giving_way(self) -> bool:
        """Return whether the worker was told to end the run at a token."""
        return self._giving_way

    @property
    def made(self) -> int:
        """Return the tokens that this run has made."""
        return self.tokens - self.order.carried_tokens

    def revoke(self) -> None:
        """Take the run back if it has not begun."""
        if not self.ended.done():
            self._command({"op": "revoke", "gen": self.generation})

    def take(self, frame: Frame) -> None:
        """Take a frame of this generation."""
        match frame["t"]:
            case "started":
                self.started_at = self._loop.time()
                if not self.started.done():
                    self.started.set_result(None)
                self._expect_first_token()
            case "tokens":
                first, self._in_prefill = self._in_prefill, False
                self.tokens = int(_number(frame["n"], "n") or 0)
                self.raw += _texts(frame["r"]) if "r" in frame else _shown(frame["d"])
                if not self._aborting:
                    self._due = self._loop.time() + self._watch.silence_s
                    if first:  # the timer still waits for the end of a prefill; later tokens leave it alone
                        self._schedule()
                    self._on_pieces(frame["d"], self.tokens)
                else:
                    self._behind_abort += frame["d"]
            case "restored":
                self.restored = Restored.of(frame)
                self._expect_first_token()
            case "resumed":  # with a longer prompt, of which the library may have to compute all
                self._in_prefill = True
                self._expect_first_token()
            case "done":
                end = RunEnd.of(frame)
                if self._behind_abort and end.reason in _WHOLE:  # it ended before the abort reached it
                    self._on_pieces(self._behind_abort, self.tokens)
                self._finish(end, None)

    def _expect_first_token(self) -> None:
        if not self._aborting:
            self._arm(self.order.first_token_limit_s)

    def lost(self, error: SlotLost) -> None:
        """The worker is gone."""
        self._finish(None, error)

    def _finish(self, end: RunEnd | None, error: SlotLost | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.started.done():
            self.started.cancel()
        if self.ended.done():
            return
        if end is not None:
            self.ended.set_result(end)
        else:
            self.ended.set_exception(error or SlotLost("the worker is gone"))

    def _arm(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = self._due if self._aborting else min(self._due, self._ends_at)
        self._timer = self._loop.call_at(at, self._look)

    @property
    def _ends_at(self) -> float:
        return float("inf") if self.started_at is None else self.started_at + self._watch.whole_s

    def _look(self) -> None:
        """The timer fired: late tokens may have moved what is due."""
        now = self._loop.time()
        if self._timer is not None and now - self._timer.when() > _LATE_S:
            self._timer = self._loop.call_at(now, self._look)  # behind what is read first
            return
        if self._aborting:
            self._kill("did not answer an abort in time")
            return
        if now < min(self._due, self._ends_at):
            self._schedule()
            return
        waited_for = "between two tokens" if self.made else "before the first token"
        if self.started_at is None:
            waited_for = "before it began"
        self.timed_out = now >= self._ends_at
        self.stalled = f"the library was silent for too long {waited_for}"
        self.abort()


def _shown(pieces: Sequence[object]) -> list[str]:
    """Return the text among the pieces of a frame."""
    return [piece for piece in pieces if isinstance(piece, str)]


def _texts(values: Sequence[object]) -> list[str]:
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        raise TypeError("a piece is no text")
    return texts


def _pair(values: Sequence[object]) -> tuple[int, float]:
    """Return a count and the milliseconds that it took."""
    count, ms = values
    return int(_number(count, "a count") or 0), _number(ms, "its time") or 0.0


def _real(value: object) -> float:
    if isinstance(value, int | float) and -_LARGEST < value < _LARGEST:
        return value
    raise ValueError("a score or a vector is no number")


def _facts(found: object) -> CacheFacts | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise TypeError("what was found is no object")
    return CacheFacts.from_json(found)


def _number(value: object, name: str) -> float | None:
    """Return a number of a frame, at least 0; None where it is absent."""
    if value is None or (isinstance(value, int | float) and 0 <= value < _LARGEST):
        return value
    raise ValueError(f"{name} is no number from 0")
