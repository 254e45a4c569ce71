"""What happens inside one rkllm_run: the events of the callback, from the first token to FINISH.

The token path is the hot one: a few hundred nanoseconds each, no allocation but the text itself.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from rkllmrt.abi import ERROR, FINISH, GO_ON, HIDDEN_LAYER, NORMAL, PAUSE, RELEASE_OUTPUT, Composite
from rkllmrt.errors import InferenceFailed, InvalidInput, NativeCallFailed, Unsupported

OnToken = Callable[[bytes | None, int], int | None]
"""(text, token id) → None or 0 to go on, PAUSE to pause. Text is None at the end of sequence and without a
tokenizer; it may end inside a character. It runs on the thread that called `generate`."""

OnTokens = Callable[[list[tuple[bytes | None, int]]], int | None]
"""As `OnToken`, one pair for each input of the batch; a negative id means that this one has ended."""

Deliver = Callable[[int], int | None]
"""Takes the address of the library's RKLLMResult, valid only during the call."""


class PerfStat(Struct, frozen=True):
    """The runtime's own measurement, as it reports it at FINISH (D+); better trust your own clock."""

    prefill_time_ms: float
    prefill_tokens: int
    """Tokens really computed: 0 when the whole prompt was still in the KV cache."""
    generate_time_ms: float
    generate_tokens: int
    """One less than the tokens that were delivered."""
    memory_usage_mb: float
    """Highest resident memory of the process so far."""


class RunOutcome(Struct, frozen=True):
    """How a run ended that did not fail."""

    state: Literal["finished", "paused"]
    perf: PerfStat | None
    """None before group D, and for a paused run."""
    callbacks: int
    """Events of this run, FINISH among them."""
    tokens: int
    """Tokens made: events with a text, a NULL text (the end of sequence) or a part of a character."""
    aborted: bool
    """`abort` was called during this run; the runtime itself does not tell why a run has ended."""
    saved_prompt_cache: Path | None = None
    """The file that was asked for, when the run has left it."""


_PRODUCED = (NORMAL, HIDDEN_LAYER)


class Run:
    """One run and its events. `event` is called by C and never raises."""

    def __init__(
        self, result: Composite, deliver: Deliver, *, pauses: bool, abort: Callable[[], None] = lambda: None
    ) -> None:
        self.error: BaseException | None = None
        """What a callback of the caller raised; the run was aborted for it."""
        self.callbacks = 0
        self.tokens = 0
        self.abort_wanted = False
        self.paused = False
        self.finished = False
        self.failed = False
        self.perf: PerfStat | None = None
        self._result = result
        self._deliver = deliver
        self._pauses = pauses
        self.abort = abort
        """Stops this run, once it has a handle."""
        self._abort_repeated = False

    def event(self, address: int | None, state: int) -> int:
        """Take one event of the library and return what its callback shall answer."""
        self.callbacks += 1
        try:
            if state in _PRODUCED:
                self.tokens += 1
                if self.abort_wanted:
                    self._repeat_abort()
                if self.error is None and address is not None:
                    verdict = self._deliver(address)
                    return self._obey(verdict) if verdict else GO_ON
            elif state == FINISH:
                self.finished = True
                self.perf = self._read_perf(address)
            elif state == ERROR:
                self.failed = True
            else:
                self.tokens += 1
                if self.abort_wanted:
                    self._repeat_abort()
        except BaseException as exc:  # noqa: BLE001 - C cannot take it; it is raised when rkllm_run has returned
            self.fail(exc)
        return GO_ON

    def fail(self, error: BaseException) -> None:
        """Remember the first error of a caller's callback and stop the run."""
        if self.error is None:
            self.error = error
            self.abort_wanted = self._abort_repeated = True  # from inside the run, once is enough
            with suppress(NativeCallFailed):  # the first error is the one to tell
                self.abort()

    def _repeat_abort(self) -> None:
        """Abort once more: the first call may have come before the library had begun the run."""
        if not self._abort_repeated:
            self._abort_repeated = True
            self.abort()

    def _obey(self, verdict: int) -> int:
        if verdict == PAUSE:
            if not self._pauses:
                raise Unsupported("this runtime cannot pause", "abort instead", capability="pause")
            self.paused = True
            return PAUSE
        if verdict == RELEASE_OUTPUT:
            return RELEASE_OUTPUT
        raise InvalidInput(f"a token callback returned {verdict!r}, not None, 0 or PAUSE")

    def _read_perf(self, address: int | None) -> PerfStat | None:
        if address is None:
            return None
        result: Any = self._result.from_address(address)
        perf = getattr(result, "perf", None)
        return None if perf is None else PerfStat(*(getattr(perf, name) for name, *_ in perf._fields_))


def token_reader(result: Composite, on_token: OnToken) -> Deliver:
    """Return what hands each token to `on_token`."""
    known_address = 0
    view: Any = None

    def deliver(address: int) -> int | None:
        nonlocal known_address, view
        if (
            address != known_address
        ):  # the library reuses one struct; making a view of it costs more than reading
            known_address, view = address, result.from_address(address)
        return on_token(view.text, view.token_id)

    return deliver


def batch_reader(result: Composite, count: int, on_tokens: OnTokens) -> Deliver:
    """Return what hands each step of `count` results, an array with the exact stride, to `on_tokens`."""
    array = result * count

    def deliver(address: int) -> int | None:
        return on_tokens([(one.text, one.token_id) for one in array.from_address(address)])

    return deliver


class ArrayReader:
    """Copies the last rows of one output (hidden states or logits) while the library lends them."""

    def __init__(
        self,
        result: Composite,
        numpy: Any,
        output: Literal["hidden", "logits"],
        *,
        release: bool,
        last: int | None = None,
    ) -> None:
        self._result = result
        self._numpy = numpy
        self._fields = _OUTPUTS[output]
        self._verdict = RELEASE_OUTPUT if release else GO_ON
        self._last = last
        self._parts: list[Any] = []

    def __call__(self, address: int) -> int:
        """Copy what `address` holds; an event without the array says nothing."""
        member, pointer_field, width_field = self._fields
        part = getattr(self._result.from_address(address), member)
        pointer = getattr(part, pointer_field)
        if not pointer:
            return GO_ON
        rows, width = part.num_tokens, getattr(part, width_field)
        if rows < 1 or width < 1:
            raise InferenceFailed("rkllm_run", 0, message=f"{member} of {rows} x {width} values")
        wanted = rows if self._last is None else min(rows, self._last)
        array = self._numpy.empty((wanted, width), dtype=self._numpy.float32)
        # All rows of a long prompt are hundreds of megabytes: what nobody wants is not copied.
        begin = ctypes.cast(pointer, ctypes.c_void_p).value or 0
        ctypes.memmove(array.ctypes.data, begin + (rows - wanted) * width * array.itemsize, array.nbytes)
        self._parts.append(array)
        return self._verdict

    def rows(self) -> Any:
        """Return one float32 array, a row for each token, the last ones where only those are wanted.

        Raises:
            InferenceFailed: the run has ended without one.
        """
        if not self._parts:
            raise InferenceFailed("rkllm_run", 0, message=f"the run delivered no {self._fields[0]}")
        joined = self._parts[0] if len(self._parts) == 1 else self._numpy.concatenate(self._parts)
        return joined if self._last is None else joined[-self._last :]


_OUTPUTS = {
    "hidden": ("last_hidden_layer", "hidden_states", "embd_size"),
    "logits": ("logits", "logits", "vocab_size"),
}
