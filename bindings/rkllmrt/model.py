"""The runs of a model: generate, one input or a batch, and the arrays that a run can deliver instead.

Rule 1: everything but `abort` is called by one thread at a time; a second call raises `Busy` at once.
Rule 2: what would crash the library or be misread by it is refused before the call.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from msgspec.structs import replace

from rkllmrt.abi import GENERATE, GET_LAST_HIDDEN_LAYER, GET_LOGITS
from rkllmrt.block import Block
from rkllmrt.cstring import c_text
from rkllmrt.errors import InferenceFailed, InvalidInput, RunFailed, Unsupported, WrongState
from rkllmrt.input_encoding import encode_inputs
from rkllmrt.inputs import Input, MultimodalInput, PromptInput, TokenInput
from rkllmrt.loaded import LoadedModel
from rkllmrt.model_encoding import encode_run
from rkllmrt.params import RunParams
from rkllmrt.request import Reader, Request, unfinished
from rkllmrt.run import ArrayReader, OnToken, OnTokens, Run, RunOutcome, batch_reader, token_reader

_PLAIN = RunParams()


class Model(LoadedModel):
    """A model and its handle. Nothing happens before `load`; close it, or use it in a `with` statement."""

    def generate(
        self, item: Input, params: RunParams = _PLAIN, on_token: OnToken | None = None
    ) -> RunOutcome:
        """Generate until the end, a limit, `abort` or a pause; tokens go to `on_token` as they are made.

        What `on_token` raises ends the run and is raised from here. Set a limit of tokens somewhere: beyond
        the window the runtime shifts and goes on, and some releases miss the end of older models.

        Raises:
            RunFailed: see `RunFailed.context_too_long_likely`.
            InferenceFailed: the runtime reported an error.
            WrongState: not loaded, busy, or paused.
        """
        if self.params.n_batch != 1:
            raise InvalidInput(f"this model runs {self.params.n_batch} inputs at once", "use generate_batch")
        request = self._request([item], params, GENERATE, partial(token_reader, self._result))
        return self._go(request, on_token or _ignore)

    def generate_batch(self, items: Sequence[Input], params: RunParams, on_tokens: OnTokens) -> RunOutcome:
        """Generate for exactly `n_batch` inputs at once; fill up with a short prompt where there are fewer.

        The run ends when all have ended, so abort it when the wanted ones have.

        Raises:
            InvalidInput: another number of inputs, or something that is undocumented for several:
                multimodal input, keep_history, a saved prompt cache.
        """
        if len(items) != self.params.n_batch:
            message = f"{len(items)} inputs for n_batch {self.params.n_batch}"
            raise InvalidInput(message, "the runtime reads exactly n_batch: fill up with a short prompt")
        self.library.require("n_batch", "a batch")
        if len(items) > 1 and (params.keep_history or params.save_prompt_cache is not None):
            raise InvalidInput("neither keep_history nor a saved prompt cache in a batch")
        if len(items) > 1 and any(isinstance(item, MultimodalInput) for item in items):
            raise InvalidInput("no multimodal input in a batch")
        request = self._request(items, params, GENERATE, partial(batch_reader, self._result, len(items)))
        return self._go(request, on_tokens)

    def resume(self, on_token: OnToken | OnTokens) -> RunOutcome:
        """Go on with the paused run; `on_token` as in the call that was paused.

        To give it up, abort at its first token: there is no other way to drop a paused run.
        """
        request = self._paused
        if request is None:
            raise WrongState("no run is paused")
        return self._go(request, on_token)

    def last_hidden_layer(self, item: Input, params: RunParams = _PLAIN) -> Any:
        """Return the hidden states, float32 numpy [tokens, width of the model]; pool them yourself."""
        return self._array(item, params, GET_LAST_HIDDEN_LAYER, "hidden")

    def logits(self, item: Input, params: RunParams = _PLAIN, *, last: int | None = None) -> Any:
        """Return the logits (B+), a float32 numpy array [tokens, vocabulary]: some 600 kB a token.

        Args:
            item: The prompt.
            params: Of the run.
            last: Only the rows of so many tokens at its end, or as many as there are; None: all.

        Raises:
            InvalidInput: token input with keep_history before 1.3.0, which ends the process in 1.2.3.
        """
        self.library.require("logits", "logits")
        if isinstance(item, TokenInput) and params.keep_history and self.library.group in "BCD":
            hint = "pass the prompt as text, or switch keep_history off"
            raise InvalidInput("logits of token input with keep_history end the process in 1.2.3", hint)
        return self._array(item, params, GET_LOGITS, "logits", last)

    def _request(self, items: Sequence[Input], params: RunParams, mode: int, reader: Reader) -> Request:
        if not self._handle.loaded:
            raise WrongState("the model is not loaded", "call load() first")
        if self._paused is not None:
            raise WrongState("a run is paused; the runtime would ignore this input and go on", "resume it")
        if params.lora_name is not None and params.lora_name not in self._lora_names:
            raise InvalidInput(f"no LoRA adapter {params.lora_name!r} was loaded", "call load_lora first")
        target = params.save_prompt_cache
        if target is not None:
            params = replace(params, save_prompt_cache=unfinished(target))
        return Request(
            self._inputs(items),
            self._encoded(params, mode),
            params.keep_history,
            reader,
            target,
        )

    def _inputs(self, items: Sequence[Input]) -> Block:
        """Return the inputs as the library reads them; a prompt is written over that of the run before."""
        item = items[0]
        if len(items) > 1 or not isinstance(item, PromptInput) or item.role != "user":
            return encode_inputs(self.library, items, own_template=self._own_template)
        kind = item.enable_thinking, self._own_template
        block = self._prompts.get(kind)
        if block is None:
            block = self._prompts[kind] = encode_inputs(self.library, items, own_template=kind[1])
        else:
            block.first.prompt_input = c_text(item.text, "the prompt")
        return block

    def _encoded(self, params: RunParams, mode: int) -> Block:
        """Return the parameters as the library reads them: nearly always those of the run before."""
        if self._last_params is None or self._last_params[0] != (params, mode):
            block = encode_run(self.library, params, mode, self._loaded_with)
            self._last_params = (params, mode), block
        return self._last_params[1]

    def _go(self, request: Request, on_token: object) -> RunOutcome:
        run = Run(self._result, request.reader(on_token), pauses=self.library.abi.pauses)
        status = self._handle.run(run, request.inputs, request.params)
        self._paused = None
        after_abort, self._after_abort = self._after_abort or run.abort_wanted, run.abort_wanted
        if run.error is not None or run.failed or status:
            request.discard_cache()
        if run.error is not None:
            raise run.error
        if run.failed:
            message = f"the runtime reported an error after {run.tokens} tokens"
            raise InferenceFailed(
                "rkllm_run", status, message=message, callbacks=run.callbacks, after_abort=after_abort
            )
        if status:
            hint = "see the runtime's log" if run.callbacks else "the prompt may be longer than the context"
            raise RunFailed("rkllm_run", status, hint=hint, callbacks=run.callbacks, after_abort=after_abort)
        if run.paused and not run.finished:
            self._paused = request
            return RunOutcome("paused", None, run.callbacks, run.tokens, run.abort_wanted)
        saved = request.keep_cache()
        return RunOutcome("finished", run.perf, run.callbacks, run.tokens, run.abort_wanted, saved)

    def _array(
        self,
        item: Input,
        params: RunParams,
        mode: int,
        output: Literal["hidden", "logits"],
        last: int | None = None,
    ) -> Any:
        if self.params.n_batch != 1:
            raise InvalidInput("hidden states and logits are undocumented for several inputs at once")
        release = self.library.capabilities.release_output
        reader = ArrayReader(self._result, _numpy(), output, release=release, last=last)
        self._go(self._request([item], params, mode, lambda _: reader), None)
        return reader.rows()


def _ignore(_text: bytes | None, _token_id: int) -> None:
    """Take a token and go on."""


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as exc:
        raise Unsupported("hidden states and logits need numpy", "pip install 'rkllm-mqtt[arrays]'") from exc
    return numpy
