"""One run inside the worker that reads numbers out of the model: options weighed by logits, texts to vectors.

Rule 1: nothing of it can be gone on with; ended before its end, it is computed anew.
Rule 2: a token id counts only when it is certain: of the model's own tokenizer file, or of tokens that the
model itself has just written and that spell the option, byte for byte.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import rkllmrt
from rkllm_mqtt.core.evaluation import weigh
from rkllm_mqtt.runtime.arrays import Unreadable, log_probabilities, pooled
from rkllm_mqtt.runtime.frames import Frame
from rkllm_mqtt.runtime.generation import load_adapter

Spelling = tuple[str, tuple[int, ...]]
"""An option as the model writes it, perhaps with a blank in front, and the ids of its tokens."""

_KEPT_SPELLINGS = 4096
_CRASHES_ON_CLEAR = "1.2.2"
"""Clearing the KV of an embedding model has been seen to end the process of this release."""


class _Ended(Exception):
    """The run was told to end."""


class Readout:
    """A run from its order to its `done` frame.

    Args:
        model: Loaded.
        window: Its tokens.
        order: The `run` frame.
        send: Takes frames.
        spellings: Of options, learned by earlier runs of this worker; what this one learns is added.
    """

    def __init__(
        self,
        model: rkllmrt.Model,
        window: int,
        order: Frame,
        send: Callable[[Frame], None],
        spellings: dict[str, Spelling],
    ) -> None:
        self.number: int = order["gen"]
        self._model = model
        self._window = window
        self._order = order
        self._asked: Mapping[str, Any] = order["readout"]
        self._send = send
        self._spellings = spellings
        self._able = model.library.capabilities
        self._lora: str | None = order["lora"]["id"] if order["lora"] else None
        self._ending = threading.Lock()
        self._entered = False
        self._begun = False
        self._reason: str | None = None

    def end(self, number: int, wish: str) -> None:
        """End this run if it is the one."""
        if number == self.number and wish in ("abort", "give_way"):
            self.abort()

    def abort(self) -> None:
        """End the run after the step in progress; from any thread, also before it began."""
        with self._ending:
            self._reason = "aborted"
            if self._entered:
                with contextlib.suppress(rkllmrt.RkllmError):  # the daemon kills us when it does not help
                    self._model.abort()

    def run(self) -> Frame:
        """Run to the end and return the `done` frame."""
        began = time.monotonic()
        try:
            end = self._read()
        except _Ended:
            end = {"reason": self._reason}
        finally:
            with self._ending:
                self._entered = False
        run_ms = (time.monotonic() - began) * 1000
        return {"t": "done", "gen": self.number, "tokens": 0, "run_ms": run_ms, **end}

    def _read(self) -> dict[str, Any]:
        with self._ending:
            if self._reason is not None:  # aborted between its frame and here
                raise _Ended
            self._entered = True
        try:
            load_adapter(self._model, self._order)
        except rkllmrt.RkllmError as exc:
            return {"reason": "adapter", "message": f"the adapter {self._lora!r}: {exc}", "hint": exc.hint}
        try:
            return {"reason": "stop", **(self._embed() if self._asked["texts"] else self._evaluate())}
        except Unreadable as exc:
            return {"reason": "unsupported", "message": str(exc), "hint": ""}
        except rkllmrt.RunFailed as exc:
            if exc.context_too_long_likely and self._too_long():
                return {"reason": "context", "message": f"the prompt does not fit {self._window} tokens"}
            # Another attempt would fail in the same way; only the handle may have suffered.
            message = f"the runtime failed in this mode: {exc}"
            return {"reason": "unsupported", "message": message, "hint": exc.hint, "stuck": True}
        except rkllmrt.RkllmError as exc:
            return {"reason": "unsupported", "message": str(exc), "hint": exc.hint}

    # evaluate

    def _evaluate(self) -> dict[str, Any]:
        prompt: str = self._order["prompt"]
        spellings = [self._spelling(option) for option in self._asked["options"]]
        ids = [tokens for _, tokens in spellings]
        if len(set(ids)) < len(ids):
            raise Unreadable("two options are the same tokens for this model")
        (first,) = self._logits(prompt, 1)
        logs = log_probabilities(first, [tokens[0] for tokens in ids])
        for place, (text, tokens) in enumerate(spellings):
            if len(tokens) > 1:
                rows = self._logits(prompt + text, len(tokens))
                for row, token in zip(rows, tokens[1:], strict=False):
                    logs[place] += log_probabilities(row, [token])[0]
        return {"scores": [[one.log_probability, one.probability] for one in weigh(ids, logs)]}

    def _logits(self, text: str, last: int) -> Any:
        """Return the rows of the last tokens of a text: each says what comes behind its token."""
        rows = self._entering(text, lambda item: self._model.logits(item, self._params(1), last=last))
        if len(rows) < last:
            # Only what was not in the KV cache was computed: without a cache it is all.
            self._model.clear_kv_cache()
            rows = self._entering(text, lambda item: self._model.logits(item, self._params(1), last=last))
        if len(rows) < last:
            raise Unreadable(f"the runtime gave the logits of {len(rows)} tokens where {last} were needed")
        return rows

    def _spelling(self, option: Mapping[str, Any]) -> Spelling:
        text: str = option["text"]
        if option["ids"] is not None:
            return text, tuple(option["ids"])
        known = self._spellings.get(text)
        if known is None:
            known = self._heard(text, option["echo"])
            if len(self._spellings) < _KEPT_SPELLINGS:
                self._spellings[text] = known
        return known

    def _heard(self, text: str, echo: str) -> Spelling:
        """Let the model repeat an option, and return what it wrote.

        Raises:
            Unreadable: It wrote something else, or its tokens cannot be told apart.
        """
        said, tokens = b"", 0
        ids: list[int] = []

        def listen(raw: bytes | None, token_id: int) -> None:
            nonlocal said, tokens
            tokens += 1
            if self._reason is None and raw and not _is(said, text):
                said += raw
                ids.append(token_id)
                if text.encode().startswith(said.lstrip()) and not _is(said, text):
                    return
            self._model.abort()

        params = self._params(len(text.encode()) + 4)
        outcome = self._entering(echo, lambda item: self._model.generate(item, params, listen))
        # A step inside a character has an id that nobody is told.
        if not _is(said, text) or (not text.isascii() and outcome.tokens != tokens):
            raise Unreadable(
                f"the tokens of the option {text[:32]!r} are not known: the model does not repeat it"
            )
        return said.decode(), tuple(ids)

    # embed

    def _embed(self) -> dict[str, Any]:
        vectors = []
        for text in self._asked["texts"]:
            if self._able.clear_kv_cache and self._model.library.version != _CRASHES_ON_CLEAR:
                # What is in the cache might not be computed, and would be missing in the mean.
                with contextlib.suppress(rkllmrt.NativeCallFailed):
                    self._model.clear_kv_cache()
            rows = self._entering(text, lambda item: self._model.last_hidden_layer(item, self._params(1)))
            vectors.append(pooled(rows, self._asked["pooling"]))
        return {"vectors": vectors}

    # inside

    def _entering(self, text: str, read: Callable[[rkllmrt.PromptInput], Any]) -> Any:
        """Let the library run once, twice where it refuses without a reason."""
        self._go_on()
        if self._begun:
            self._send({"t": "resumed", "gen": self.number})  # the watch waits for another prefill
        self._begun = True
        item = rkllmrt.PromptInput(text)
        try:
            found = read(item)
        except rkllmrt.RunFailed as exc:
            self._go_on()  # what was ended may have delivered nothing
            # A run that ended well without any row had its whole prompt in the KV cache.
            if exc.status and (exc.callbacks or self._too_long()):
                raise
            with contextlib.suppress(rkllmrt.RkllmError):
                self._model.clear_kv_cache()  # as for a generation: a handle may be stuck after an abort
            found = read(item)
        self._go_on()
        return found

    def _go_on(self) -> None:
        if self._reason is not None:
            raise _Ended

    def _too_long(self) -> bool:
        texts = self._asked["texts"] or [self._order["prompt"]]
        return max(len(text.encode()) for text in texts) >= self._window

    def _params(self, max_new_tokens: int) -> rkllmrt.RunParams:
        # What was said before may and must be said again, and the likeliest token is the one.
        plain = rkllmrt.Sampling(
            top_k=1, repeat_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0, mirostat=0
        )
        return rkllmrt.RunParams(
            max_new_tokens=max_new_tokens if self._able.per_run_max_new_tokens else None,
            sampling=plain if self._able.per_run_sampling else None,
            lora_name=self._lora,
        )


def _is(said: bytes, text: str) -> bool:
    """Return whether bytes spell a text, blanks in front of it left out of account."""
    return said.lstrip() == text.encode()
