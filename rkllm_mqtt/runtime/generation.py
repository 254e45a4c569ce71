"""One run inside the worker: bytes of tokens in, frames of text out, ended by stop string, limit or abort."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

import rkllmrt
from rkllm_mqtt.core.chat import SAMPLING
from rkllm_mqtt.core.chunks import next_cut
from rkllm_mqtt.runtime.frames import Frame
from rkllm_mqtt.runtime.transcript import Transcript

# Tokens that come faster than this share a frame; at the pace of an NPU, 15 to 80 ms, each has its own.
_FRAME_INTERVAL_S = 0.001

_ANEW = 1.5
"""A second chunk with so many more tokens a character than the first was computed from the beginning."""
_TELLING = 16
"""Tokens of a first chunk, below which it tells nothing."""
_LEAST_CHUNK = 64
"""Characters."""
_GROWTH = 2
"""A chunk is at most so many times the one before: of that, more may have been cached than was known."""


def sampling_of(order: Frame, capabilities: rkllmrt.Capabilities) -> rkllmrt.Sampling | None:
    """Return the sampling parameters of an order; None: it has none, or the runtime cannot change them."""
    given = order["sampling"]
    if not given or not capabilities.per_run_sampling:
        return None
    return rkllmrt.Sampling(**{name: given[name] for name in SAMPLING if name in given})


def load_adapter(model: rkllmrt.Model, order: Frame) -> None:
    """Load the adapter of an order, unless the model has it."""
    lora = order["lora"]
    if lora is not None and lora["id"] not in model.loras:
        model.load_lora(Path(lora["file"]), lora["id"], lora["scale"])


def restore(model: rkllmrt.Model, path: str) -> Frame:
    """Load a prompt-cache file; return what is told of it, a failure included: the run goes on without it."""
    began = time.monotonic()
    message = ""
    try:
        model.load_prompt_cache(Path(path))
    except rkllmrt.RkllmError as exc:
        message = str(exc) or type(exc).__name__
    return {"ok": not message, "ms": (time.monotonic() - began) * 1000, "message": message}


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
        self._library_limits = model.library.capabilities.per_run_max_new_tokens
        self._text = Transcript(order, send, limited=self._library_limits)
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        self._silent = 0
        self._chunks: list[tuple[int, float]] = []
        self._first_chars = 1
        self._reuse: bool | None = None
        self._saved: tuple[int, float] | None = None
        self._reached = 0
        self._is_clean = False
        self._computes_from = 0.0
        self._chunk_token_at: float | None = None
        self._yielding = False
        self._ends_itself = False
        """The library works on a piece of the prompt, which ends with its first token."""
        self._flusher: tuple[threading.Thread, threading.Event] | None = None
        """Sends what is late, once that is so; at the pace of an NPU it never comes to this."""
        self._reason: str | None = None
        self._entered = False
        self._first_token_at: float | None = None

    def end(self, number: int, wish: str) -> None:
        """End this run if it is the one: `abort` at once, `give_way` with its next token."""
        if number == self.number:
            if wish == "abort":
                self.abort()
            elif wish == "give_way":
                self.give_way()

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
            if reason == "preempted" and self._ends_itself:
                return  # the library computes a piece to its end in any case, and keeps what was not aborted
        # The run cannot end between the look and the abort, which would hit the next one then.
        # The other lock stays free for the callback, for which the library may wait.
        with self._ending:
            if self._entered:
                with contextlib.suppress(rkllmrt.RkllmError):  # the daemon kills us when it does not help
                    self._model.abort()

    def run(self) -> Frame:
        """Run to the end and return the `done` frame; every other frame is sent on the way."""
        began = self._computes_from = time.monotonic()
        try:
            end = self._generate()
        finally:
            ended = time.monotonic()
            with self._ending:
                self._entered = False
            self._end_flusher()
        with self._lock:
            self._text.end(self._reason)
        first = self._first_token_at
        return {
            "t": "done",
            "gen": self.number,
            "tokens": self._text.tokens,
            "chunks": self._chunks,
            "reuse": self._reuse,
            "repeated": self._text.repeated,
            "run_ms": (ended - began) * 1000,
            "prefill_ms": None if first is None else (first - self._computes_from) * 1000,
            "generate_ms": None if first is None else (ended - first) * 1000,
            "written": self._text.written,
            "saved": self._saved,
            "reached": self._reached,
            "clean": self._is_clean,
            **end,
        }

    def _generate(self) -> dict[str, Any]:
        with self._lock:
            if self._reason is not None:  # aborted between its frame and here
                return {"reason": self._reason}
            self._entered = True
        order = self._order
        if self._lora is not None:
            try:
                load_adapter(self._model, order)
            except rkllmrt.RkllmError as exc:
                message = f"the adapter {self._lora!r}: {exc}"
                return {"reason": "adapter", "message": message, "hint": exc.hint}
        try:
            if not self._prepare():
                return {"reason": self._reason}
            if order["prime"]:
                return self._compute_whole()
            outcome = self._enter(order["prompt"])
            made = outcome.tokens
            if self._text.thought_out and self._reason is None:
                made += self._enter(self._close_thoughts()).tokens
            elif self._stops_at_thoughts():
                made += self._enter(self._so_far()).tokens
        except rkllmrt.RunFailed as exc:
            return self._failed(exc)
        except rkllmrt.RkllmError as exc:
            return {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}
        # Steps in the middle of a character come to nobody's ear, but they are tokens.
        text = self._text
        text.tokens = max(text.tokens, text.carried + made - self._silent - text.repeated)
        if self._reason is None:
            limited = text.tokens >= text.max_tokens
            self._reason = "length" if limited else "stop"
        perf = outcome.perf
        before = sum(computed for computed, _ in self._chunks)
        return {
            "reason": self._reason,
            "computed_tokens": None if perf is None else before + perf.prefill_tokens,
            "memory_mb": None if perf is None else perf.memory_usage_mb,
        }

    def _prepare(self) -> bool:
        """Do what the order wants before its last run of the library; False when the run was ended."""
        if self._order["restore"] is not None and self._reason is None:
            self._restore()
        if self._order["chunks"] is not None:
            self._compute_chunks()
        return self._reason is None

    def _restore(self) -> None:
        """Load the prompt-cache file of the order, and tell the daemon that we have survived it."""
        told = restore(self._model, self._order["restore"])
        self._computes_from = time.monotonic()
        self._send({"t": "restored", "gen": self.number, **told})

    def _compute_whole(self) -> dict[str, Any]:
        """Compute the whole prompt of a prime run, and leave its prompt-cache file."""
        save = self._order["save"]
        params = replace(self._chunk_params, save_prompt_cache=None if save is None else Path(save))
        if not self._begin_piece():
            return {"reason": self._reason}
        began = time.monotonic()
        outcome = self._library_run(self._order["prompt"], params)
        ended = time.monotonic()
        if outcome.saved_prompt_cache is not None:  # it is written behind the first token
            saved_ms = (ended - (self._chunk_token_at or ended)) * 1000
            self._saved = outcome.saved_prompt_cache.stat().st_size, saved_ms
            ended -= saved_ms / 1000
        perf = outcome.perf
        if self._reason is None or self._is_clean:
            self._reason = None  # it was over before it could give way
            self._reached = len(self._order["prompt"])
            if perf is not None:
                self._chunks.append((perf.prefill_tokens, (ended - began) * 1000))
        return {
            "reason": self._reason or "stop",
            "computed_tokens": None if perf is None else sum(computed for computed, _ in self._chunks),
            "memory_mb": None if perf is None else perf.memory_usage_mb,
        }

    def _begin_piece(self) -> bool:
        """Let whoever wants us to give way wait for the piece that begins now; False: it came before."""
        with self._lock:
            self._ends_itself = self._library_limits and self._reason is None
            return self._reason is None

    def _library_run(self, prompt: str, params: rkllmrt.RunParams) -> rkllmrt.RunOutcome:
        """Compute a beginning of the prompt."""
        self._is_clean = False
        try:
            outcome = self._model.generate(rkllmrt.PromptInput(prompt), params, self._on_chunk)
        finally:
            self._ends_itself = False
        self._is_clean = not outcome.aborted
        return outcome

    @property
    def _chunk_params(self) -> rkllmrt.RunParams:
        return rkllmrt.RunParams(max_new_tokens=1 if self._library_limits else None, lora_name=self._lora)

    def _compute_chunks(self) -> None:
        """Compute the prompt in pieces but for the last, or until the run is ended between two."""
        order, whole = self._order["chunks"], self._order["prompt"]
        params = self._chunk_params
        start, chars = order["start"], order["chars"]
        while (cut := next_cut(whole, start, chars, order["borders"])) is not None:
            if not self._begin_piece():
                return
            began = time.monotonic()
            outcome = self._library_run(whole[:cut], params)
            ms = (time.monotonic() - began) * 1000
            if self._reason is not None and not self._is_clean:
                return
            if outcome.perf is None:
                break  # it does not say what it computed: nobody would notice that it is all in vain
            computed = outcome.perf.prefill_tokens
            self._chunks.append((computed, ms))
            self._reached = cut
            if len(self._chunks) == 2:
                (first, _), (second, _) = self._chunks
                anew = second >= _ANEW * first * (cut - start) / self._first_chars
                # Of a first chunk that was in the cache already there is nothing to compare with.
                self._reuse = not anew if first >= _TELLING else None
            if self._reuse is False:
                break
            if len(self._chunks) == 1:
                self._first_chars = cut - start
            # A text of digits has three times the tokens of a text of words.
            wanted = round((cut - start) * order["tokens"] / max(1, computed))
            chars = max(_LEAST_CHUNK, min(wanted, _GROWTH * (cut - start)))
            start = cut

    def _on_chunk(self, _raw: bytes | None, _token_id: int) -> None:
        """The first token of a chunk ends it; it means nothing."""
        self._chunk_token_at = time.monotonic()
        if self._reason == "aborted" or not self._library_limits:
            self._model.abort()

    def _enter(self, text: str) -> rkllmrt.RunOutcome:
        thinking = self._order["thinking"] and self._model.library.capabilities.thinking_switch
        prompt = rkllmrt.PromptInput(text, enable_thinking=thinking)
        self._is_clean = False
        try:
            outcome = self._model.generate(prompt, self._params(), self._on_token)
            self._is_clean = not outcome.aborted
            return outcome
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
            self._text.close_thoughts()
        return self._so_far()

    def _stops_at_thoughts(self) -> bool:
        """Return whether the library ended its run between thoughts and answer, as 1.3.0 does at times."""
        return self._reason is None and self._text.unanswered

    def _so_far(self) -> str:
        """Return the prompt with all that was written; the watch is told that it is to be computed."""
        self._send({"t": "resumed", "gen": self.number})
        return self._text.so_far

    def _too_long(self) -> bool:
        # A prompt of fewer bytes than the window has tokens cannot be too long, whatever the tokenizer.
        return len(self._order["prompt"].encode("utf-8")) >= self._window

    def _params(self) -> rkllmrt.RunParams:
        return rkllmrt.RunParams(
            max_new_tokens=self._text.left if self._library_limits else None,
            sampling=sampling_of(self._order, self._model.library.capabilities),
            lora_name=self._lora,
        )

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
        if self._reason is not None or self._text.thought_out:
            self._silent += 1  # a step that was under way when the run was ended
            self._model.abort()  # again: the first may have come before the library had begun
            return
        now = time.monotonic()
        if self._first_token_at is None:
            self._first_token_at = now
        text = self._text
        with self._lock:
            if not text.read(raw):
                return
            if now - text.sent_at >= _FRAME_INTERVAL_S:
                text.flush()
            else:
                self._want_flush()
            self._reason = text.reason or self._reason  # a natural end wins over an abort that came too late
            if self._reason is None:
                text.look_for_loop(raw)
                self._reason = text.reason
            if self._yielding and self._reason is None and text.whole and text.left > 0:
                self._reason = "preempted"
        if self._reason is not None or text.thought_out:
            self._model.abort()

    def _flush_late(self, late: threading.Event) -> None:
        """Send what came too fast for a frame of its own, then silence; a thread of each run."""
        late.wait()
        while self._entered:
            # The pause is the grouping itself, not a wait for something.
            time.sleep(_FRAME_INTERVAL_S)
            with self._lock:
                late.clear()
                if self._text.has_news:
                    self._text.flush()
            if self._entered:  # else the wish to end may be what was cleared
                late.wait()

    def _want_flush(self) -> None:
        if self._flusher is None:
            late = threading.Event()
            thread = threading.Thread(target=self._flush_late, args=(late,), name="flusher", daemon=True)
            self._flusher = thread, late
            thread.start()
        _, late = self._flusher
        if not late.is_set():
            late.set()

    def _end_flusher(self) -> None:
        if self._flusher is not None:
            thread, late = self._flusher
            late.set()
            thread.join()
