"""Write `ModelParams` and `RunParams` into the structs of the loaded release, or refuse them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rkllmrt.abi import GENERATE
from rkllmrt.block import Block
from rkllmrt.cores import SYSFS, choose_cpus
from rkllmrt.cstring import c_path, c_text
from rkllmrt.errors import InvalidInput, Unsupported
from rkllmrt.library import Library
from rkllmrt.params import ModelParams, RunParams, Sampling

# From the header (n_batch: the runtime's own log line; CPUs: RK3588 has eight; domains: the driver has 16).
_RANGES: Mapping[str, tuple[int, int]] = {
    "max_context_len": (1, 2**31 - 1),
    "max_new_tokens": (-1, 2**31 - 1),
    "base_domain_id": (0, 15),
    "enabled_cpus_num": (1, 8),
    "enabled_cpus_mask": (1, 2**32 - 1),
    "n_batch": (1, 100),
}
_WIDTHS: Mapping[str, tuple[int, int]] = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int8": (-128, 127),
    "uint8": (0, 255),
}
# Saying "off" to a release that has no switch asks for nothing.
_NEUTRAL: Mapping[str, object] = {"n_batch": 1, "use_cross_attn": False, "ignore_eos_token": False}


def encode_model(library: Library, params: ModelParams, *, sysfs: Path = SYSFS) -> Block:
    """Return RKLLMParam: the library's defaults, overwritten with what `params` says.

    is_async is always off: rkllm_run_async crashed or lost its callbacks in several releases.

    Raises:
        Unsupported: a field that this release does not have.
        InvalidInput: a value out of range.
    """
    block = Block(library.structs["RKLLMParam"], start=library.default_block())
    words = dict(library.abi.structs["RKLLMParam"])
    extend_words = dict(library.abi.structs["RKLLMExtendParam"])
    if params.n_batch != 1:
        library.require("n_batch", "n_batch above 1")
    for name in params.__struct_fields__:
        value = getattr(params, name)
        if value is None:
            continue
        if name in words:
            setattr(block.first, name, _native(name, words[name], value))
        elif name in extend_words:
            setattr(block.first.extend_param, name, _native(name, extend_words[name], value))
        elif value != _NEUTRAL.get(name, _MISSING):
            message = f"runtime {library.version or library.group} has no parameter {name}"
            raise Unsupported(message, "leave it out, or use another runtime", capability=name)
    block.first.is_async = False
    if library.capabilities.cpu_selection:
        _select_cpus(block.first.extend_param, params, sysfs)
    return block


def encode_run(library: Library, params: RunParams, mode: int, loaded: Mapping[str, object]) -> Block:
    """Return RKLLMInferParam; sampling that `params` leaves open is as in `loaded`, by C field name.

    Raises:
        Unsupported: something that this release does not take per run.
        InvalidInput: a value out of range.
    """
    block = Block(library.structs["RKLLMInferParam"])
    block.first.mode = mode
    if params.keep_history:
        library.require("keep_history", "keep_history; the whole conversation goes into the prompt")
        block.first.keep_history = 1
    if params.lora_name is not None:
        lora = Block(library.structs["RKLLMLoraParam"])
        lora.first.lora_adapter_name = c_text(params.lora_name, "lora_name")
        block.first.lora_params = block.keep(lora)
    if params.save_prompt_cache is not None:
        if mode != GENERATE:
            raise InvalidInput("a prompt cache is saved by a generating run")
        cache = Block(library.structs["RKLLMPromptCacheParam"])
        cache.first.save_prompt_cache = 1
        cache.first.prompt_cache_path = c_path(params.save_prompt_cache, "save_prompt_cache")
        block.first.prompt_cache_params = block.keep(cache)
    if params.max_new_tokens is not None:
        library.require("per_run_max_new_tokens", "max_new_tokens per run")
        if params.max_new_tokens < 1:
            raise InvalidInput("max_new_tokens of a run is at least 1", "leave it out for the model's value")
        block.first.max_new_tokens = _native("max_new_tokens", "int32", params.max_new_tokens)
    if params.sampling is not None:
        library.require("per_run_sampling", "sampling per run")
        sampling = _encode_sampling(library, params.sampling.filled(loaded))
        block.first.sampling_params = block.keep(sampling)
    return block


def loaded_sampling(model: Block) -> dict[str, object]:
    """Return the sampling fields that the encoded `model` is loaded with."""
    return {name: getattr(model.first, name) for name in Sampling.__struct_fields__}


_MISSING = object()


def _encode_sampling(library: Library, sampling: Sampling) -> Block:
    block = Block(library.structs["RKLLMSamplingParam"])
    for name, word in library.abi.structs["RKLLMSamplingParam"]:
        setattr(block.first, name, _native(name, word, getattr(sampling, name)))
    return block


def _select_cpus(extend: Any, params: ModelParams, sysfs: Path) -> None:
    """Set count and mask together: the library's own mask is right with 4 or 8 CPUs online only."""
    count, mask = params.enabled_cpus_num, params.enabled_cpus_mask
    if mask is None:
        choice = choose_cpus(count, sysfs)
        count, mask = choice.count, choice.mask
    elif count is None:
        count = min(8, mask.bit_count())
    elif count > mask.bit_count():
        raise InvalidInput(
            f"enabled_cpus_num is {count}, but enabled_cpus_mask allows {mask.bit_count()} CPUs"
        )
    extend.enabled_cpus_num, extend.enabled_cpus_mask = count, mask


def _native(name: str, word: str, value: Any) -> object:
    """Return `value` as ctypes takes it for a field of type `word`.

    Raises:
        InvalidInput: wrong type or out of range; ctypes itself would cut an integer silently.
    """
    if word == "string":
        return c_path(value, name) if name == "model_path" else c_text(value, name)
    if word == "bool":
        return bool(value)
    if word == "float":
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InvalidInput(f"{name} must be a finite number, not {value!r}")
        return float(value)
    low, high = _RANGES.get(name, _WIDTHS[word])
    if not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"{name} must be an integer from {low} to {high}, not {value!r}")
    return int(value)
