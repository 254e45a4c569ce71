"""One run inside the worker: bytes of tokens in, frames of text out, ended by stop string, limit or abort."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rkllmrt
from rkllm_mqtt.core.chat import SAMPLING
from rkllm_mqtt.core.repetition import RepetitionDetector
from rkllm_mqtt.core.utf8 import Utf8Stream
from rkllm_mqtt.runtime.frames import Frame
from rkllm_mqtt.runtime.reader import AnswerReader

# Tokens that come faster than this share a frame; at the pace of an NPU, 15 to 80 ms, each has its own.
_FRAME_INTERVAL_S = 0.001

# A loop this long is no list or table any more; shorter answers end by their own limit.
_LOOP_TOKENS = 512

_ANEW = 1.5
"""A second chunk that computes so much more than the first was computed from the beginning."""


class Generation:
    """A run from its order to its `done` frame."""

    def __init__(
        self, model: rkllmrt.Model, window: int, order: Frame, send: Callable[[Frame], None]
    ) -> None:
        self.number: int = order["gen"]
        self._model = model
        self._window = window
        self._order = order
        self._send = send
        self._lora: str | None = order["lora"]["id"] if order["lora"] else None
        self._max_tokens: int = order["max_tokens"]
        self._library_limits = model.library.capabilities.per_run_max_new_tokens
        self._carried: int = order["carried_tokens"]
        self._utf8 = Utf8Stream()
        self._reader = AnswerReader(order)
        self._repetition = RepetitionDetector(min_tokens=_LOOP_TOKENS)
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        for piece in order["carried"]:
            self._repetition.feed(piece.encode())
        self._raw: list[str] = []
        self._tokens = self._carried
        self._thought_out = False
        """The thoughts have used their tokens: the library's run is ended, ours goes on."""
        self._silent = 0
        self._repeated = 0
        self._chunks: list[tuple[int, float]] = []
        self._reuse: bool | None = None
        self._yielding = False
        self._sent_at = float("-inf")
        self._late = threading.Event()
        self._flusher: threading.Thread | None = None
        self._reason: str | None = None
        self._entered = False
        self._first_token_at: float | None = None

    def abort(self) -> None:
        """End the run after the step in progress; from any thread, also before it began."""
        self._interrupt("aborted")

    def give_way(self) -> None:
        """End the run with its next token, which is kept; before the first one as `abort` does."""
        with self._lock:
            self._yielding = True
            if self._first_token_at is not None:
                return
        self._interrupt("preempted")

    def _interrupt(self, reason: str) -> None:
        with self._lock:
            if self._reason is None:
                self._reason = reason
        # The run cannot end between the look and the abort, which would hit the next one then.
        # The other lock stays free for the callback, for which the library may wait.
        with self._ending:
            if self._entered:
                with contextlib.suppress(rkllmrt.RkllmError):  # the daemon kills us when it does not help
                    self._model.abort()

    def run(self) -> Frame:
        """Run to the end and return the `done` frame; every other frame is sent on the way."""
        began = time.monotonic()
        try:
            end = self._generate()
        finally:
            ended = time.monotonic()
            with self._ending:
                self._entered = False
            self._end_flusher()
        self._flush_rest()
        first = self._first_token_at
        return {
            "t": "done",
            "gen": self.number,
            "tokens": self._tokens,
            "chunks": self._chunks,
            "reuse": self._reuse,
            "repeated": self._repeated,
            "run_ms": (ended - began) * 1000,
            "prefill_ms": None if first is None else (first - began) * 1000,
            "generate_ms": None if first is None else (ended - first) * 1000,
            "written": self._reader.written(),
            **end,
        }

    def _generate(self) -> dict[str, Any]:
        with self._lock:
            if self._reason is not None:  # aborted between its frame and here
                return {"reason": self._reason}
            self._entered = True
        try:
            self._load_adapter()
        except rkllmrt.RkllmError as exc:
            return {"reason": "adapter", "message": f"the adapter {self._lora!r}: {exc}", "hint": exc.hint}
        try:
            if not self._compute_chunks():
                return {"reason": self._reason}
            outcome = self._enter(self._order["prompt"])
            made = outcome.tokens
            if self._thought_out and self._reason is None:
                made += self._enter(self._close_thoughts()).tokens
            elif self._stops_at_thoughts():
                made += self._enter(self._so_far()).tokens
        except rkllmrt.RunFailed as exc:
            return self._failed(exc)
        except rkllmrt.RkllmError as exc:
            return {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}
        # Steps in the middle of a character come to nobody's ear, but they are tokens.
        self._tokens = max(self._tokens, self._carried + made - self._silent - self._repeated)
        if self._reason is None:
            limited = self._tokens >= self._max_tokens
            self._reason = "length" if limited else "stop"
        perf = outcome.perf
        before = sum(computed for computed, _ in self._chunks)
        return {
            "reason": self._reason,
            "computed_tokens": None if perf is None else before + perf.prefill_tokens,
            "memory_mb": None if perf is None else perf.memory_usage_mb,
        }

    def _load_adapter(self) -> None:
        if self._lora is not None and self._lora not in self._model.loras:
            lora = self._order["lora"]
            self._model.load_lora(Path(lora["file"]), lora["id"], lora["scale"])

    def _compute_chunks(self) -> bool:
        """Compute the beginnings of the prompt one by one; False when the run was ended between two."""
        params = rkllmrt.RunParams(max_new_tokens=1 if self._library_limits else None, lora_name=self._lora)
        for chars in self._order["chunks"]:
            began = time.monotonic()
            prompt = rkllmrt.PromptInput(self._order["prompt"][:chars])
            outcome = self._model.generate(prompt, params, self._on_chunk)
            ms = (time.monotonic() - began) * 1000
            if self._reason is not None:
                return False
            if outcome.perf is None:
                break  # it does not say what it computed: nobody would notice that it is all in vain
            self._chunks.append((outcome.perf.prefill_tokens, ms))
            if len(self._chunks) == 2:
                (first, _), (second, _) = self._chunks
                self._reuse = second < _ANEW * first
            if self._reuse is False:
                break
        return True

    def _on_chunk(self, _raw: bytes | None, _token_id: int) -> None:
        """The first token of a chunk ends it; it means nothing."""
        if self._reason is not None or not self._library_limits:
            self._model.abort()

    def _enter(self, text: str) -> rkllmrt.RunOutcome:
        thinking = self._order["thinking"] and self._model.library.capabilities.thinking_switch
        prompt = rkllmrt.PromptInput(text, enable_thinking=thinking)
        try:
            return self._model.generate(prompt, self._params(), self._on_token)
        except rkllmrt.RunFailed as exc:
            if exc.callbacks or self._too_long():
                raise
        # A handle is sometimes stuck at -1 after an aborted run; dropping its KV often mends it, and
        # costs less than loading the model again.
        with contextlib.suppress(rkllmrt.RkllmError):
            self._model.clear_kv_cache()
        return self._model.generate(prompt, self._params(), self._on_token)

    def _close_thoughts(self) -> str:
        """Return the prompt with which the model goes on behind its thoughts."""
        with self._lock:
            self._utf8.flush()  # half a character is no thought
            self._raw.append(self._reader.close_thoughts())
            self._thought_out = False
        return self._so_far()

    def _stops_at_thoughts(self) -> bool:
        """Return whether the library ended its run between thoughts and answer, as 1.3.0 does at times."""
        own_template = self._order["thinking"]  # what the library makes of a prompt cannot be gone on with
        goes_on = self._reason is None and self._tokens < self._max_tokens and not own_template
        return goes_on and self._reader.unanswered

    def _so_far(self) -> str:
        """Return the prompt with all that was written; the watch is told that it is to be computed."""
        self._send({"t": "resumed", "gen": self.number})
        carried = len("".join(self._order["carried"]).rstrip())
        prompt: str = self._order["prompt"]
        return prompt[: len(prompt) - carried] + self._reader.so_far

    def _too_long(self) -> bool:
        # A prompt of fewer bytes than the window has tokens cannot be too long, whatever the tokenizer.
        return len(self._order["prompt"].encode("utf-8")) >= self._window

    def _params(self) -> rkllmrt.RunParams:
        capabilities = self._model.library.capabilities
        sampling = None
        if self._order["sampling"] and capabilities.per_run_sampling:
            given = self._order["sampling"]
            sampling = rkllmrt.Sampling(**{name: given[name] for name in SAMPLING if name in given})
        limit = None
        if self._library_limits:
            # White space that was carried is made again and not counted: it is no more than its characters.
            limit = self._max_tokens - self._tokens + self._reader.again
        return rkllmrt.RunParams(max_new_tokens=limit, sampling=sampling, lora_name=self._lora)

    def _failed(self, exc: rkllmrt.RunFailed) -> dict[str, Any]:
        if exc.context_too_long_likely and self._too_long():
            return {"reason": "context", "message": f"the prompt does not fit {self._window} tokens"}
        return {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}

    def _on_token(self, raw: bytes | None, _token_id: int) -> None:
        """Take one token from the library; called for each, so nothing here may be slow."""
        if raw is None:
            self._silent += 1  # the end-of-sequence step
            if self._reason == "preempted":
                self._reason = None  # it was over before it could give way
            return
        if self._reason is not None or self._thought_out:
            self._silent += 1  # a step that was under way when the run was ended
            self._model.abort()  # again: the first may have come before the library had begun
            return
        now = time.monotonic()
        if self._first_token_at is None:
            self._first_token_at = now
        with self._lock:
            if not self._read(raw):
                self._repeated += 1
                return
            if now - self._sent_at >= _FRAME_INTERVAL_S:
                self._flush(now)
            else:
                self._want_flush()
            # Last: it changes no text, and the token is on its way already.
            if self._repetition.feed(raw) and self._reason is None:
                self._reason = "repetition"
            if self._yielding and self._reason is None and not self._utf8.pending:
                self._reason = "preempted"
        if self._reason is not None or self._thought_out:
            self._model.abort()

    def _read(self, raw: bytes) -> bool:
        """Read one token; False when it was made before."""
        piece = self._utf8.feed(raw)
        if piece and not self._reader.feed(piece):
            return False
        self._tokens += 1
        if piece:
            self._raw.append(piece)
        if self._reader.stopped:
            self._reason = "stop"
        elif self._tokens >= self._max_tokens and (self._carried or not self._library_limits):
            self._reason = "length"
        self._thought_out = self._reader.thinks_too_long and self._tokens < self._max_tokens
        return True

    def _flush(self, now: float) -> None:
        pieces, raw = self._reader.take(), self._raw
        frame = {"t": "tokens", "gen": self.number, "n": self._tokens, "d": pieces}
        if raw != pieces:  # nearly all text is shown as it is made, and need not be sent twice
            frame["r"] = raw
        self._send(frame)
        self._raw = []
        self._sent_at = now

    def _flush_late(self) -> None:
        """Send what came too fast for a frame of its own, then silence; a thread of each run."""
        while True:
            self._late.wait()
            if self._over():
                return
            # The pause is the grouping itself, not a wait for something.
            time.sleep(_FRAME_INTERVAL_S)
            with self._lock:
                self._late.clear()
                if self._raw or self._reader.has_pieces:
                    self._flush(time.monotonic())
            if self._over():  # the wish to end may be what was cleared
                return

    def _over(self) -> bool:
        return not self._entered

    def _want_flush(self) -> None:
        if self._flusher is None:  # at the pace of an NPU it never comes to this
            self._flusher = threading.Thread(target=self._flush_late, name="flusher", daemon=True)
            self._flusher.start()
        if not self._late.is_set():
            self._late.set()

    def _end_flusher(self) -> None:
        if self._flusher is not None:
            self._late.set()
            self._flusher.join()

    def _flush_rest(self) -> None:
        with self._lock:
            if self._reason != "preempted":  # else what is held back is read again by the next run
                self._reader.end(self._utf8.flush(), complete=self._reason == "stop")
            if self._raw or self._reader.has_pieces:
                self._flush(time.monotonic())
