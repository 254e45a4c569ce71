"""One run inside the worker: bytes of tokens in, frames of text out, ended by stop string, limit or abort."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rkllmrt
from rkllm_mqtt.content.calls import CallParser, CallPiece
from rkllm_mqtt.content.offer import Offer
from rkllm_mqtt.core.chat import SAMPLING
from rkllm_mqtt.core.repetition import RepetitionDetector
from rkllm_mqtt.core.stops import StopFilter
from rkllm_mqtt.core.thinking import ThinkingSplitter
from rkllm_mqtt.core.utf8 import Utf8Stream
from rkllm_mqtt.runtime.frames import Frame

# Tokens that come faster than this share a frame; at the pace of an NPU, 15 to 80 ms, each has its own.
_FRAME_INTERVAL_S = 0.001

# A loop this long is no list or table any more; shorter answers end by their own limit.
_LOOP_TOKENS = 512


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
        self._max_tokens: int = order["max_tokens"]
        self._library_limits = model.library.capabilities.per_run_max_new_tokens
        self._utf8 = Utf8Stream()
        self._stops = StopFilter(order["stops"], drop=order["specials"])
        self._repetition = RepetitionDetector(min_tokens=_LOOP_TOKENS)
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        self._splitter = ThinkingSplitter(order["opens_thinking"])
        self._text_stops = StopFilter(order["text_stops"])
        self._calls = _call_parser(order["calls"])
        self._pieces: list[str | list[str] | dict[str, str]] = []
        self._written: list[str] = []
        self._shown: list[str] = []
        self._tokens = 0
        self._silent = 0
        self._sent_at = float("-inf")
        self._late = threading.Event()
        self._flusher: threading.Thread | None = None
        self._shown_whole = True
        """Neither thoughts nor calls were taken out of the text."""
        self._reason: str | None = None
        self._entered = False
        self._first_token_at: float | None = None

    def abort(self) -> None:
        """End the run after the step in progress; from any thread, also before it began."""
        with self._lock:
            if self._reason is None:
                self._reason = "aborted"
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
            "run_ms": (ended - began) * 1000,
            "prefill_ms": None if first is None else (first - began) * 1000,
            "generate_ms": None if first is None else (ended - first) * 1000,
            "written": self._all_written(),
            **end,
        }

    def _generate(self) -> dict[str, Any]:
        with self._lock:
            if self._reason is not None:  # aborted between its frame and here
                return {"reason": self._reason}
            self._entered = True
        try:
            outcome = self._enter()
        except rkllmrt.RunFailed as exc:
            return self._failed(exc)
        except rkllmrt.RkllmError as exc:
            return {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}
        # Steps in the middle of a character come to nobody's ear, but they are tokens.
        self._tokens = max(self._tokens, outcome.tokens - self._silent)
        if self._reason is None:
            limited = self._tokens >= self._max_tokens
            self._reason = "length" if limited else "stop"
        perf = outcome.perf
        return {
            "reason": self._reason,
            "computed_tokens": None if perf is None else perf.prefill_tokens,
            "memory_mb": None if perf is None else perf.memory_usage_mb,
        }

    def _enter(self) -> rkllmrt.RunOutcome:
        thinking = self._order["thinking"] and self._model.library.capabilities.thinking_switch
        prompt = rkllmrt.PromptInput(self._order["prompt"], enable_thinking=thinking)
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

    def _too_long(self) -> bool:
        # A prompt of fewer bytes than the window has tokens cannot be too long, whatever the tokenizer.
        return len(self._order["prompt"].encode("utf-8")) >= self._window

    def _params(self) -> rkllmrt.RunParams:
        capabilities = self._model.library.capabilities
        sampling = None
        if self._order["sampling"] and capabilities.per_run_sampling:
            given = self._order["sampling"]
            sampling = rkllmrt.Sampling(**{name: given[name] for name in SAMPLING if name in given})
        return rkllmrt.RunParams(
            max_new_tokens=self._max_tokens if self._library_limits else None, sampling=sampling
        )

    def _failed(self, exc: rkllmrt.RunFailed) -> dict[str, Any]:
        if exc.context_too_long_likely and self._too_long():
            return {"reason": "context", "message": f"the prompt does not fit {self._window} tokens"}
        return {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}

    def _on_token(self, raw: bytes | None, token_id: int) -> None:
        """Take one token from the library; called for each, so nothing here may be slow."""
        if raw is None:
            self._silent += 1  # the end-of-sequence step
            return
        if self._reason is not None:
            self._silent += 1  # a step that was under way when the run was ended
            self._model.abort()  # again: the first may have come before the library had begun
            return
        now = time.monotonic()
        if self._first_token_at is None:
            self._first_token_at = now
        with self._lock:
            self._tokens += 1
            piece = self._utf8.feed(raw)
            if piece:
                self._written.append(piece)
                self._show(self._stops.feed(piece))
            if self._stopped():
                self._reason = "stop"
            elif self._tokens >= self._max_tokens and not self._library_limits:
                self._reason = "length"
            if now - self._sent_at >= _FRAME_INTERVAL_S:
                self._flush(now)
            else:
                self._want_flush()
            # Last: it changes no text, and the token is on its way already.
            if self._repetition.feed((token_id, raw)) and self._reason is None:
                self._reason = "repetition"
        if self._reason is not None:
            self._model.abort()

    def _all_written(self) -> str | None:
        """Return what the model wrote up to the family's stop; None where just that was shown."""
        written = "".join(self._written)
        if self._stops.stopped is not None:
            written = written[: written.rfind(self._stops.stopped)]
        return None if self._shown_whole and written == "".join(self._shown) else written

    def _stopped(self) -> bool:
        """Return whether what came so far is the whole answer."""
        if self._calls is not None and self._calls.ended:
            return True
        return self._stops.stopped is not None or self._text_stops.stopped is not None

    def _show(self, text: str) -> None:
        if text:
            for part in self._splitter.feed(text):
                self._add(*part)

    def _add(self, kind: str, text: str) -> None:
        if kind == "thinking":
            self._shown_whole = False
            self._pieces.append([text])
        elif self._calls is None:
            self._add_text(text)
        else:
            self._add_parsed(self._calls.feed(text))

    def _add_parsed(self, parts: Sequence[CallPiece]) -> None:
        for part in parts:
            if isinstance(part, str):
                self._add_text(part)
            elif self._text_stops.stopped is None:
                self._shown_whole = False
                self._pieces.append({"name": part.name, "arguments": part.arguments})

    def _add_text(self, text: str) -> None:
        text = self._text_stops.feed(text)
        if text:
            self._shown.append(text)
            self._pieces.append(text)

    def _flush(self, now: float) -> None:
        self._send({"t": "tokens", "gen": self.number, "n": self._tokens, "d": self._pieces})
        self._pieces = []
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
                if self._pieces:
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
            if self._stops.stopped is None:
                self._show(self._stops.feed(self._utf8.flush()) + self._stops.flush())
            for part in self._splitter.flush():
                self._add(*part)
            if self._calls is not None:
                self._add_parsed(self._calls.flush(complete=self._reason == "stop"))
            rest = self._text_stops.flush()
            if rest:
                self._shown.append(rest)
                self._pieces.append(rest)
            if self._pieces:
                self._flush(time.monotonic())


def _call_parser(order: Frame | None) -> CallParser | None:
    """Return what tells calls from text for the `calls` of a run's frame."""
    if order is None:
        return None
    return CallParser(Offer(order["tools"]), begun=order["begun"], only_one=order["only_one"])
