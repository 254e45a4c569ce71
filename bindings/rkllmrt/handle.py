"""Own one LLMHandle, the callback objects that C may call, and the rule that it does one thing at a time."""

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rkllmrt.abi import GO_ON, EmbedCallback, ResultCallback, TokenizerCallback
from rkllmrt.block import Block, int32_array
from rkllmrt.errors import Busy, InvalidInput, LoadFailed, WrongState, check
from rkllmrt.library import Library
from rkllmrt.run import Run

Tokenizer = Callable[[bytes], Sequence[int]]
"""UTF-8 text → token ids."""

Embedder = Callable[[Sequence[int]], Any]
"""Token ids → float32 rows, a buffer of exactly the bytes that the model needs."""

# Concurrent rkllm_init calls are undefined; one process loads one model after the other.
_INIT = threading.Lock()


class Handle:
    """The native side of a model. `abort` may be called from any thread, all else from one at a time."""

    def __init__(self, library: Library, tokenizer: Tokenizer | None, embedder: Embedder | None) -> None:
        self.late_events = 0
        """Events of earlier runs that came after their run had ended; they were dropped."""
        self._library = library
        self._tokenizer = tokenizer
        self._embedder = embedder
        self._pointer = ctypes.c_void_p()
        self._state = threading.Lock()
        self._visitor_left = threading.Condition(self._state)
        self._busy_with = ""
        self._visitors = 0
        self._run: Run | None = None
        self._run_number = 0
        # C keeps these addresses: the objects must live as long as the handle.
        self._result_callback = ResultCallback(self._on_result)
        self._tokenizer_callback = TokenizerCallback(self._on_tokenize)
        self._embed_callback = EmbedCallback(self._on_embed)
        self._callbacks = self._callback_block() if library.abi.callback_struct else None

    @property
    def loaded(self) -> bool:
        """Whether there is a native handle."""
        return bool(self._pointer.value)

    @property
    def running(self) -> bool:
        """Whether a run is in progress, by our own count: rkllm_is_running contradicts its documentation."""
        return self._run is not None

    def init(self, params: Block) -> None:
        """Load the model.

        Raises:
            LoadFailed: a failure status, or success with a NULL handle (seen when NPU memory ran out).
        """
        pointer = ctypes.c_void_p()
        callback: object = self._result_callback if self._callbacks is None else self._callbacks.address
        with self._exclusive("rkllm_init"), _INIT:
            status = self._library.status_of("rkllm_init", ctypes.byref(pointer), params.address, callback)
            check(status, "rkllm_init")
            if not pointer.value:
                hint = "most likely the NPU memory is full; free some, or use another base_domain_id"
                raise LoadFailed(
                    "rkllm_init", 0, message="rkllm_init made no handle, though it reports success", hint=hint
                )
            self._pointer = pointer

    def call(self, function: str, *arguments: object) -> None:
        """Call a native function with the handle in front; `Busy` during a run."""
        with self._exclusive(function):
            self._library.call(function, self._live(), *arguments)

    def run(self, run: Run, inputs: Block, params: Block) -> int:
        """Run to the end and return the status; the events go to `run`."""
        with self._state:
            if self._busy_with:
                raise self._busy("rkllm_run")
            pointer = self._live()
            run.abort = lambda: self._library.call("rkllm_abort", pointer)
            self._busy_with, self._run = "rkllm_run", run
            self._run_number += 1
        try:
            # The number comes back with each event: later ones of an aborted run have another.
            return self._library.status_of(
                "rkllm_run", pointer, inputs.address, params.address, self._run_number
            )
        finally:
            with self._state:
                self._run = None
                # An abort meant for this run must not hit the next one.
                if self._visitors:
                    self._visitor_left.wait_for(lambda: self._visitors == 0)
                self._busy_with = ""

    def abort(self) -> bool:
        """Tell the run in progress to stop and return whether there was one."""
        with self._visit() as pointer:
            run = self._run
            if run is None or run.finished:
                return False
            run.abort_wanted = True
            self._library.call("rkllm_abort", pointer)
            return True

    def native_is_running(self) -> bool:
        """Return what rkllm_is_running says; 1 is running whatever the headers say, -1 is no handle."""
        with self._visit() as pointer:
            return bool(pointer.value) and self._library.status_of("rkllm_is_running", pointer) == 1

    def destroy(self) -> None:
        """Free the model; the handle is gone even when the library reports a failure."""
        with self._exclusive("rkllm_destroy"):
            with self._state:
                self._visitor_left.wait_for(lambda: self._visitors == 0)
                pointer, self._pointer = self._pointer, ctypes.c_void_p()
            if pointer.value:
                self._library.call("rkllm_destroy", pointer)

    @contextmanager
    def _exclusive(self, what: str) -> Iterator[None]:
        with self._state:
            if self._busy_with:
                raise self._busy(what)
            self._busy_with = what
        try:
            yield
        finally:
            with self._state:
                self._busy_with = ""

    def _busy(self, what: str) -> Busy:
        hint = "wait until it has ended; abort() stops a run"
        return Busy(f"{what} while {self._busy_with} is in progress", hint)

    def _live(self) -> ctypes.c_void_p:
        if not self.loaded:
            raise WrongState("the model is not loaded", "call load() first")
        return self._pointer

    @contextmanager
    def _visit(self) -> Iterator[ctypes.c_void_p]:
        """Lend the handle to a call that another thread may make; neither run nor handle ends meanwhile.

        The lock is not held: a library that waited in abort for the step would block its callback for ever.
        """
        with self._state:
            self._visitors += 1
        try:
            yield self._pointer
        finally:
            with self._state:
                self._visitors -= 1
                self._visitor_left.notify_all()

    def _on_result(self, result: int | None, userdata: int | None, state: int) -> int:
        try:
            run = self._run
            if run is None or userdata != self._run_number:
                self.late_events += 1
                return GO_ON
            return run.event(result, state)
        except BaseException as exc:  # noqa: BLE001 - a signal's exception may come between any two steps
            self._fail_run(exc)
            return GO_ON

    def _callback_block(self) -> Block:
        block = Block(self._library.structs["RKLLMCallback"])
        block.first.result_callback = _address_of(self._result_callback)
        if self._tokenizer is not None:
            block.first.tokenizer_callback = _address_of(self._tokenizer_callback)
        if self._embedder is not None:
            block.first.embed_callback = _address_of(self._embed_callback)
        return block

    def _on_tokenize(self, _userdata: int | None, text: int, size: int, tokens: int, room: int) -> int:
        try:
            ids = list(self._tokenizer(ctypes.string_at(text, size))) if self._tokenizer else []
            if len(ids) > room:
                raise InvalidInput(f"the tokenizer made {len(ids)} tokens, the runtime has room for {room}")
            ctypes.memmove(tokens, int32_array(ids), 4 * len(ids))
        except BaseException as exc:  # noqa: BLE001 - as in Run.event
            self._fail_run(exc)
            return -1
        return len(ids)

    def _on_embed(self, _userdata: int | None, tokens: int, count: int, room: int, size: int) -> int:
        try:
            ids = list((ctypes.c_int32 * count).from_address(tokens))
            rows = memoryview(self._embedder(ids)).cast("B") if self._embedder else memoryview(b"")
            if rows.nbytes != size:
                raise ValueError(
                    f"the embedder made {rows.nbytes} bytes for {count} tokens, the model needs {size}"
                )
            ctypes.memmove(room, bytes(rows), size)
        except BaseException as exc:  # noqa: BLE001 - as in Run.event
            self._fail_run(exc)
            return -1
        return 0

    def _fail_run(self, error: BaseException) -> None:
        if self._run is not None:
            self._run.fail(error)


def _address_of(callback: object) -> int | None:
    return ctypes.cast(callback, ctypes.c_void_p).value  # type: ignore[arg-type]  # any CFUNCTYPE object
