"""One step of a probe inside the worker: short runs that show what the library does with its caches.

Rule 1: each step begins with a prompt that nothing in the KV cache begins with, and relies on no other step.
Rule 2: it can be ended between two runs, and within one as every run; what it has found by then is told.
Rule 3: files are written where the daemon says, which removes them.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rkllmrt
from rkllm_mqtt.core.probes import (
    LENGTH,
    PARTINGS,
    Computed,
    granularity_of,
    holds_answer,
    is_reused,
    letters,
    to_make,
)
from rkllm_mqtt.runtime.frames import Frame

_LONGEST_S = 60.0
"""A step that takes longer ends with what it has found."""
_MOST_TO_END = 48
"""Tokens after which an answer that does not end by itself is aborted."""
_SHORT = "\nSay: OK\n"
"""Asks for an answer that ends soon."""
_TAIL = 16
"""Letters behind a repeated answer."""
_MB = 1e6


class _Ended(Exception):
    """Somebody needs the slot, or the step takes too long."""


class _Unclear(Exception):
    """The library refused a run behind an aborted one: what was in the KV cache is gone."""


class Probe:
    """One step from its order to its `done` frame."""

    def __init__(self, model: rkllmrt.Model, order: Frame, send: Callable[[Frame], None]) -> None:
        self.number: int = order["gen"]
        self._model = model
        self._order = order
        self._send = send
        self._limits = model.library.capabilities.per_run_max_new_tokens
        self._found: dict[str, Any] = {}
        self._ending = threading.Lock()
        self._entered = False
        self._aborted = False
        self._until = 0.0
        self._seed = time.monotonic_ns()

    def end(self, number: int, _wish: str) -> None:
        """End the step if it is the one."""
        if number == self.number:
            self.abort()

    def abort(self) -> None:
        """End the step with the library's step in progress; from any thread."""
        # The run cannot end between the look and the abort, which would hit the next one then.
        with self._ending:
            self._aborted = True
            if self._entered:
                with contextlib.suppress(rkllmrt.RkllmError):  # the daemon kills us when it does not help
                    self._model.abort()

    def run(self) -> Frame:
        """Run to the end and return the `done` frame."""
        began = time.monotonic()
        self._until = began + _LONGEST_S
        end: dict[str, Any] = {"reason": "stop"}
        try:
            self._step()
        except _Ended:
            end["reason"] = "aborted" if self._aborted else "stop"
        except rkllmrt.RunFailed as exc:
            end = {"reason": "error", "message": str(exc), "hint": exc.hint, "stuck": True}
        except rkllmrt.RkllmError as exc:
            end = {"reason": "error", "message": str(exc), "hint": exc.hint}
        took_ms = (time.monotonic() - began) * 1000
        return {"t": "done", "gen": self.number, "found": self._found, "run_ms": took_ms, **end}

    def _step(self) -> None:
        step = {
            "reuse": self._reuse,
            "aborted": self._aborted_reuse,
            "generated": self._generated,
            "files": self._files,
        }[self._order["step"]]
        try:
            step()
        except _Unclear:
            with contextlib.suppress(_Unclear):
                step()  # once more from an empty cache

    # the steps

    def _reuse(self) -> None:
        seed = self._new_seed()
        whole = self._compute(letters(seed))
        again = self._compute(letters(seed, PARTINGS[0]))
        reused = is_reused(whole, again)
        if reused is None or (reused is False and not whole.finished):
            return  # nothing is known of runs that end by themselves
        self._found["reuses_finished"] = reused
        if reused and whole.tokens is not None and again.tokens is not None:
            matched = [whole.tokens - again.tokens]
            for place in PARTINGS[1:]:
                if granularity_of(matched) == 1:
                    break
                computed = self._compute(letters(seed, place)).tokens
                matched.append(whole.tokens - (computed or 0))
            self._found["granularity"] = granularity_of(matched)

    def _aborted_reuse(self) -> None:
        seed = self._new_seed()
        whole = self._compute(letters(seed), abort=True)
        self._found["reuses_aborted"] = False  # in effect, where each run behind it is refused
        reused = is_reused(whole, self._compute(letters(seed, PARTINGS[0])))
        self._found["reuses_aborted"] = None
        if reused is not None:
            self._found["reuses_aborted"] = reused
            if reused:  # what an aborted run leaves, a finished one leaves too
                self._found["reuses_finished"] = True

    def _generated(self) -> None:
        wanted = to_make(self._order["granularity"])
        if wanted is None or not self._order["raw"]:
            return
        seed = self._new_seed()
        said: list[bytes] = []
        prompt = letters(seed) + "\n"
        whole = self._compute(prompt, make=wanted, said=said)
        half = said[: wanted // 2]
        try:
            text = b"".join(half).decode()
        except UnicodeDecodeError:
            return
        if len(half) < wanted // 2 or whole.tokens is None:
            return
        again = self._compute(prompt + text + letters(seed + 1, count=_TAIL))
        if again.tokens is not None and is_reused(whole, again):
            tail = round(_TAIL * whole.tokens / LENGTH)  # where a letter is more than a token, or less
            self._found["holds_generated"] = holds_answer(whole.tokens, len(half), tail, again.tokens)

    def _files(self) -> None:
        folder = Path(self._order["folder"])
        try:
            self._restore(folder / "saved.cache", self._save(folder / "saved.cache"))
            file = folder / "aborted.cache"
            self._compute(letters(self._new_seed()), abort=True, save=file)
            self._found["aborted_saves"] = file.exists()
        finally:
            self._model.release_prompt_cache()

    def _save(self, file: Path) -> int:
        """Save a prompt, time it, and return its seed."""
        seed = self._new_seed()
        whole = self._compute(letters(seed))
        again_ms = self._timed(letters(seed))
        saving_ms = self._timed(letters(seed), save=file)
        if file.exists():
            size = file.stat().st_size
            self._found["bytes_per_token"] = round(size / (whole.tokens or LENGTH))
            self._found["save_s_per_mb"] = max(0.0, saving_ms - again_ms) / 1000 / (size / _MB)
        return seed

    def _restore(self, file: Path, seed: int) -> None:
        """Load what was saved after foreign work, and see what is matched then."""
        if not file.exists():
            return
        foreign = self._new_seed()
        other = self._compute(letters(foreign))
        loaded_s = self._load(file)
        if loaded_s is None:
            return
        # First what was there before, then the file: its being matched now is its having stayed.
        kept = is_reused(other, self._compute(letters(foreign, PARTINGS[0])))
        stayed = is_reused(other, self._compute(letters(seed, PARTINGS[0])))
        if not stayed:
            self._compute(letters(self._new_seed()))
            loaded_s = self._load(file)
            if loaded_s is None or not is_reused(other, self._compute(letters(seed, PARTINGS[0]))):
                return  # it helps nothing
        self._found["load_replaces"] = None if kept is None else not kept
        self._found["loaded_stays"] = stayed
        self._found["load_s_per_mb"] = loaded_s / (file.stat().st_size / _MB)

    def _load(self, file: Path) -> float | None:
        """Load a file and return the seconds; None when the library refuses it."""
        self._look()
        began = time.monotonic()
        try:
            self._model.load_prompt_cache(file)
        except rkllmrt.NativeCallFailed:
            return None
        return time.monotonic() - began

    # one run

    def _new_seed(self) -> int:
        self._seed += 7919
        return self._seed

    def _timed(self, prompt: str, save: Path | None = None) -> float:
        began = time.monotonic()
        self._compute(prompt, save=save)
        return (time.monotonic() - began) * 1000

    def _compute(
        self,
        prompt: str,
        *,
        make: int = 1,
        abort: bool = False,
        save: Path | None = None,
        said: list[bytes] | None = None,
    ) -> Computed:
        """Run a prompt and return what it took to its first token.

        Args:
            prompt: Whole.
            make: Tokens of the answer; a release without that limit goes on to the end of its answer.
            abort: Abort it at its first token.
            save: File for its prompt cache.
            said: Takes the tokens.
        """
        self._look()
        self._send({"t": "resumed", "gen": self.number})  # the watch waits for a prefill again
        abort_at, limit = (1 if abort else 0), (_MOST_TO_END if abort else make)
        if not self._limits and not abort:
            abort_at = make if make > 1 else _MOST_TO_END
            prompt += _SHORT if make == 1 else ""  # there is no other way to let it end by itself
        first_ms: list[float] = []
        began, made = time.monotonic(), 0

        def on_token(raw: bytes | None, _token_id: int) -> None:
            nonlocal made
            made += 1
            if not first_ms:
                first_ms.append((time.monotonic() - began) * 1000)
            if said is not None and raw is not None:
                said.append(raw)
            if self._aborted or made >= abort_at > 0:
                self._model.abort()

        params = rkllmrt.RunParams(max_new_tokens=limit if self._limits else None, save_prompt_cache=save)
        outcome = self._enter(rkllmrt.PromptInput(prompt), params, on_token)
        if self._aborted:
            raise _Ended
        tokens = None if outcome.perf is None else outcome.perf.prefill_tokens
        return Computed(tokens, first_ms[0] if first_ms else 0.0, not outcome.aborted)

    def _enter(
        self, prompt: rkllmrt.PromptInput, params: rkllmrt.RunParams, on_token: Callable[..., None]
    ) -> rkllmrt.RunOutcome:
        with self._ending:
            self._look()
            self._entered = True
        try:
            return self._model.generate(prompt, params, on_token)
        except rkllmrt.RunFailed as exc:
            if exc.callbacks or not exc.after_abort:
                raise
        finally:
            with self._ending:
                self._entered = False
        # A handle is sometimes stuck at -1 behind an aborted run, and this mends it.
        self._model.clear_kv_cache()
        raise _Unclear

    def _look(self) -> None:
        if self._aborted or time.monotonic() > self._until:
            raise _Ended
