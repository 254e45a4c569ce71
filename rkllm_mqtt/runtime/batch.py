"""Several runs at once inside the worker: one array to the library, a column of results for each run.

Rule 1: the library gets exactly as many inputs as the model was loaded for; those that nobody wants are
    a short prompt.
Rule 2: a column that is over tells its end at once and is silent from then on; the library cannot end it.
Rule 3: the library's run is ended when all wanted columns are over.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rkllmrt
from rkllm_mqtt.runtime.frames import Frame
from rkllm_mqtt.runtime.generation import load_adapter, sampling_of
from rkllm_mqtt.runtime.transcript import Transcript

_PADDING = "Hi"

_WISHES = {"abort": "aborted", "give_way": "preempted"}


class Column:
    """One run of a batch."""

    def __init__(self, order: Frame, send: Callable[[Frame], None]) -> None:
        self.text = Transcript(order, send, limited=False)
        self.order = order
        self.prompt: str = order["prompt"]
        self.ended = False
        self.yields = False
        """It is to end with its next token."""
        self.share_s = 0.0
        """Its part of the time that the library worked."""
        self.began_unanswered = self.text.unanswered
        if self.text.thinks_too_long:  # the run before ended for this
            self.prompt = self.text.close_thoughts()


class BatchGeneration:
    """A batch from its orders to their `done` frames."""

    def __init__(
        self, model: rkllmrt.Model, window: int, orders: Sequence[Frame], send: Callable[[Frame], None]
    ) -> None:
        self._model = model
        self._window = window
        self._send = send
        self._columns = [Column(order, send) for order in orders]
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        self._entered = False
        self._began = self._counted = 0.0
        self._first_token_at: float | None = None

    def end(self, number: int, wish: str) -> None:
        """End a column: `abort` at once, `give_way` with its next token; from any thread."""
        column = next((one for one in self._columns if one.text.number == number), None)
        if column is None or wish not in _WISHES:
            return
        with self._lock:
            if column.ended:
                return
            if wish == "give_way" and self._first_token_at is not None:
                column.yields = True
                return
            self._close(column, _WISHES[wish])
            is_over = self._is_over()
        # As in a single run: it cannot end between the look and the abort, which would hit the next one; and
        # the callback, for which the library may wait, needs the other lock only.
        with self._ending:
            if self._entered and is_over:
                with contextlib.suppress(rkllmrt.RkllmError):  # the daemon kills us when it does not help
                    self._model.abort()

    def abort(self) -> None:
        """End every column."""
        for column in self._columns:
            self.end(column.text.number, "abort")

    def run(self) -> bool:
        """Run until all columns are over; return whether the handle can be used for another run."""
        self._began = self._counted = time.monotonic()
        for column in self._columns:
            self._send({"t": "started", "gen": column.text.number})
        failure: dict[str, Any] | None = None
        try:
            if self._enter_allowed():
                failure = self._load_adapter()
                if failure is None:
                    self._generate()
        except rkllmrt.RunFailed as exc:
            failure = self._failed(exc)
        except rkllmrt.RkllmError as exc:
            failure = {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}
        finally:
            with self._ending:
                self._entered = False
        with self._lock:
            for column in self._columns:
                if not column.ended:
                    self._close(column, "stop", failure)
        return failure is None or not failure.get("stuck", False)

    def _enter_allowed(self) -> bool:
        with self._lock:
            self._entered = not self._is_over()
            return self._entered

    def _load_adapter(self) -> dict[str, Any] | None:
        try:
            load_adapter(self._model, self._columns[0].order)
        except rkllmrt.RkllmError as exc:
            return {"reason": "adapter", "message": f"the adapter cannot be loaded: {exc}", "hint": exc.hint}
        return None

    def _generate(self) -> None:
        try:
            self._model.generate_batch(self._inputs(), self._params(), self._on_tokens)
        except rkllmrt.RunFailed as exc:
            if exc.callbacks:
                raise
            # As after a single run: a handle that is stuck at -1 behind an aborted run.
            with contextlib.suppress(rkllmrt.RkllmError):
                self._model.clear_kv_cache()
            self._model.generate_batch(self._inputs(), self._params(), self._on_tokens)

    def _inputs(self) -> list[rkllmrt.PromptInput]:
        can_think = self._model.library.capabilities.thinking_switch
        inputs = [
            rkllmrt.PromptInput(column.prompt, enable_thinking=column.order["thinking"] and can_think)
            for column in self._columns
        ]
        padding = self._model.params.n_batch - len(inputs)
        return inputs + [rkllmrt.PromptInput(_PADDING)] * padding

    def _params(self) -> rkllmrt.RunParams:
        capabilities = self._model.library.capabilities
        lora = self._columns[0].order["lora"]
        limit = None
        if capabilities.per_run_max_new_tokens:
            # One more: the step in which the longest column's end would be told.
            limit = 1 + max(column.text.left for column in self._columns)
        return rkllmrt.RunParams(
            max_new_tokens=limit,
            sampling=sampling_of(self._columns[0].order, capabilities),
            lora_name=lora["id"] if lora else None,
        )

    def _on_tokens(self, results: Sequence[tuple[bytes | None, int]]) -> None:
        """Take a step of all columns."""
        now = time.monotonic()
        with self._lock:
            self._count(now)
            if self._first_token_at is None:
                self._first_token_at = now
            for column, (raw, token_id) in zip(self._columns, results, strict=False):
                if not column.ended:
                    self._read(column, raw, token_id)
            is_over = self._is_over()
        if is_over:
            self._model.abort()  # at each step: the first may have come before the library had begun

    def _read(self, column: Column, raw: bytes | None, token_id: int) -> None:
        text = column.text
        if token_id < 0:
            self._close(column, "stop")
        elif raw is None:
            text.tokens += 1  # a part of a character
        elif text.read(raw):
            text.flush()
            if text.reason is None:
                text.look_for_loop(raw)
            if text.reason is not None:
                self._close(column, text.reason)
            elif text.whole and (column.yields or text.thought_out):
                # Its thoughts are closed by the run that goes on with it.
                self._close(column, "preempted")

    def _close(self, column: Column, reason: str, failure: dict[str, Any] | None = None) -> None:
        """Tell the end of a column."""
        text, now = column.text, time.monotonic()
        self._count(now)
        if failure is None and reason == "stop" and text.reason is None:
            if text.tokens >= text.max_tokens:
                reason = "length"
            elif text.unanswered and not column.began_unanswered:
                reason = "preempted"  # 1.3.0 ends some runs right behind the thoughts
        column.ended = True
        text.end("error" if failure else reason)
        first = self._first_token_at
        self._send(
            {
                "t": "done",
                "gen": text.number,
                "tokens": text.tokens,
                "columns": len(self._columns),
                "repeated": text.repeated,
                "run_ms": column.share_s * 1000,
                "prefill_ms": None if first is None else (first - self._began) * 1000,
                "generate_ms": None if first is None else (now - first) * 1000,
                "written": text.written,
                "reason": reason,
                **(failure or {}),
            }
        )

    def _count(self, now: float) -> None:
        """Charge the time that has passed to the columns that are not over."""
        working = [column for column in self._columns if not column.ended]
        for column in working:
            column.share_s += (now - self._counted) / len(working)
        self._counted = now

    def _is_over(self) -> bool:
        return all(column.ended for column in self._columns)

    def _too_long(self) -> bool:
        return any(len(column.prompt.encode("utf-8")) >= self._window for column in self._columns)

    def _failed(self, exc: rkllmrt.RunFailed) -> dict[str, Any]:
        if exc.context_too_long_likely and len(self._columns) == 1 and self._too_long():
            return {"reason": "context", "message": f"the prompt does not fit {self._window} tokens"}
        return {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}
