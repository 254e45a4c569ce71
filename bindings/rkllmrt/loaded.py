"""One model and its handle, without its runs: load, KV cache, adapters, templates, close."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rkllmrt.abi import SLACK, Composite
from rkllmrt.block import Block, int32_array
from rkllmrt.cstring import c_path, c_text
from rkllmrt.errors import InvalidInput, WrongState
from rkllmrt.handle import Embedder, Handle, Tokenizer
from rkllmrt.input_encoding import require_json_array
from rkllmrt.inputs import FloatBuffer
from rkllmrt.library import Library
from rkllmrt.model_encoding import encode_model, loaded_sampling
from rkllmrt.params import ModelParams, RunParams
from rkllmrt.request import Request


class LoadedModel:
    """What `Model` is besides its runs."""

    def __init__(
        self,
        library: Library,
        params: ModelParams,
        *,
        tokenizer: Tokenizer | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.library = library
        self.params = params
        if tokenizer is not None:
            library.require("tokenizer_callback", "a tokenizer callback")
        if embedder is not None:
            library.require("embed_callback", "an embedding callback")
        self._handle = Handle(library, tokenizer, embedder)
        self._loaded_with: dict[str, object] = {}
        self._result: Composite = library.structs["RKLLMResult"]
        self._prompts: dict[tuple[bool, bool], Block] = {}
        self._last_params: tuple[tuple[RunParams, int], Block] | None = None
        self._kept: list[Block] = []
        self._lora_names: set[str] = set()
        self._own_template = False
        self._cache_loaded = False
        self._after_abort = False
        self._paused: Request | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether a run is in progress."""
        return self._handle.running

    @property
    def paused(self) -> bool:
        """Whether the last run was paused; only `resume` goes on from there."""
        return self._paused is not None

    @property
    def loras(self) -> frozenset[str]:
        """The adapters that were loaded, by name."""
        return frozenset(self._lora_names)

    @property
    def late_events(self) -> int:
        """Events of earlier runs that the library delivered too late; they were dropped."""
        return self._handle.late_events

    def load(self) -> None:
        """Load the model: seconds to tens of seconds.

        Raises:
            LoadFailed: the runtime says why on its stdout.
            Unsupported: a parameter that this release does not have.
            InvalidInput: a parameter out of range, or no such file.
            WrongState: loaded or closed before; a model is loaded once.
        """
        if self._closed or self._handle.loaded:
            raise WrongState("a model is loaded once", "make a new Model, best in a new process")
        if not Path(self.params.model_path).is_file():
            raise InvalidInput(f"no model file {self.params.model_path}", "check the path")
        block = encode_model(self.library, self.params)
        self._loaded_with = loaded_sampling(block)
        self._kept.append(block)
        self._handle.init(block)

    def abort(self) -> bool:
        """Stop the run in progress, from any thread or from its callback; return whether there was one.

        The step in progress is finished first, a whole prefill too; the run has ended when its call returns.
        """
        return self._handle.abort()

    def native_is_running(self) -> bool:
        """Return the runtime's own opinion of `running`; for diagnosis."""
        return self._handle.native_is_running()

    def clear_kv_cache(
        self, *, keep_system_prompt: bool = False, ranges: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """Forget the context (B+), with it what the next run could have reused of its prompt.

        With `ranges` only these positions [start, end), one pair for each of the batch (D+), while a run
        without keep_history is paused; `keep_system_prompt` does not count then.

        Raises:
            WrongState: ranges at another moment; the runtime would answer -1.
        """
        self.library.require("clear_kv_cache", "clear_kv_cache")
        keep = int(keep_system_prompt)
        if not self.library.capabilities.ranges:
            if ranges is not None:
                self.library.require("ranges", "ranges of positions")
            self._handle.call("rkllm_clear_kv_cache", keep)
        elif ranges is None:
            self._handle.call("rkllm_clear_kv_cache", keep, None, None)
        else:
            self._require_ranges(ranges)
            starts = int32_array([start for start, _ in ranges])
            ends = int32_array([end for _, end in ranges])
            self._handle.call("rkllm_clear_kv_cache", keep, ctypes.addressof(starts), ctypes.addressof(ends))

    def kv_cache_size(self) -> list[int]:
        """Return the positions in use, one number for each of the batch (D+)."""
        self.library.require("kv_cache_size", "kv_cache_size")
        sizes = (ctypes.c_int32 * (self.params.n_batch + SLACK))()
        self._handle.call("rkllm_get_kv_cache_size", ctypes.addressof(sizes))
        return list(sizes[: self.params.n_batch])

    def load_prompt_cache(self, path: Path) -> None:
        """Load a saved KV cache; one at a time, so one loaded before is released first.

        Raises:
            PromptCacheFailed: it belongs to another model, runtime or template; go on without it.
        """
        if not path.is_file():
            raise InvalidInput(f"no prompt cache {path}")
        self.release_prompt_cache()
        self._handle.call("rkllm_load_prompt_cache", c_path(path, "path"))
        self._cache_loaded = True

    def release_prompt_cache(self) -> None:
        """Release the loaded prompt cache; without one nothing happens."""
        if self._cache_loaded:
            self._handle.call("rkllm_release_prompt_cache")
            self._cache_loaded = False

    def load_lora(self, path: Path, name: str, scale: float = 1.0) -> None:
        """Load an adapter that runs choose as `RunParams.lora_name`; it stays until the model is closed."""
        if not path.is_file():
            raise InvalidInput(f"no LoRA adapter {path}", "check the path")
        adapter = Block(self.library.structs["RKLLMLoraAdapter"])
        adapter.first.lora_adapter_path = c_path(path, "path")
        adapter.first.lora_adapter_name = c_text(name, "name")
        adapter.first.scale = scale
        self._kept.append(adapter)
        self._handle.call("rkllm_load_lora", adapter.address)
        self._lora_names.add(name)

    def raw_chat_template(self) -> None:
        """Have prompts taken as they are, special-token strings included; only a new model goes back.

        Group A has no template of its own, so there is nothing to replace.
        """
        if self.library.capabilities.chat_template:
            self.set_chat_template("", "", "")

    def set_chat_template(self, system: str | bytes, prefix: str | bytes, postfix: str | bytes) -> None:
        """Replace the template by system + prefix + prompt + postfix (B+); thinking has no switch then."""
        self.library.require("chat_template", "a chat template")
        parts = (c_text(system, "system"), c_text(prefix, "prefix"), c_text(postfix, "postfix"))
        self._handle.call("rkllm_set_chat_template", *parts)
        self._own_template = True

    def set_function_tools(
        self, system: str | bytes, tools_json: str | bytes, tool_response: str | bytes = "tool_response"
    ) -> None:
        """Declare tools (D+), a JSON array in the OpenAI shape, for good; calls come back as text."""
        self.library.require("function_tools", "function tools")
        require_json_array(tools_json, "tools_json")
        parts = (
            c_text(system, "system"),
            c_text(tools_json, "tools_json"),
            c_text(tool_response, "tool_response"),
        )
        self._handle.call("rkllm_set_function_tools", *parts)

    def set_cross_attention(
        self,
        k_cache: FloatBuffer,
        v_cache: FloatBuffer,
        mask: FloatBuffer,
        positions: Sequence[int],
        n_tokens: int,
    ) -> None:
        """Set the encoder's output that runs attend to (D+); for models loaded with use_cross_attn."""
        self.library.require("cross_attention", "cross attention")
        if not self.params.use_cross_attn:
            raise WrongState("the model was not loaded with use_cross_attn")
        if n_tokens < 1 or len(positions) < n_tokens:
            raise InvalidInput(f"{len(positions)} positions for {n_tokens} tokens")
        block = Block(self.library.structs["RKLLMCrossAttnParam"])
        block.first.encoder_k_cache = block.copy_floats(k_cache, "k_cache", at_least=n_tokens)
        block.first.encoder_v_cache = block.copy_floats(v_cache, "v_cache", at_least=n_tokens)
        block.first.encoder_mask = block.copy_floats(mask, "mask", at_least=n_tokens)
        block.first.encoder_pos = block.keep_int32(positions)
        block.first.num_tokens = n_tokens
        self._kept.append(block)  # whether the library copies them is not documented
        self._handle.call("rkllm_set_cross_attn_params", block.address)

    def close(self) -> None:
        """Free the model's memory on CPU and NPU; again does nothing.

        Raises:
            Busy: a run is in progress; abort it and wait until it has ended.
        """
        if self._handle.loaded:
            self.release_prompt_cache()
            self._handle.destroy()
        self._closed = True
        self._paused = None

    def _require_ranges(self, ranges: Sequence[tuple[int, int]]) -> None:
        if len(ranges) != self.params.n_batch or any(not 0 <= start <= end for start, end in ranges):
            raise InvalidInput(f"ranges are {self.params.n_batch} pairs (start, end)")
        if self._paused is None or self._paused.keep_history:
            raise WrongState("ranges need a paused run without keep_history", "pause by returning PAUSE")
