"""The tree of errors; the class says whose turn it is, `hint` what a person can do.

RkllmError
├── LibraryRefused      the .so cannot be used: absent, other machine, too old, contradicts itself
├── Unsupported         this release of the runtime has no such call or field; names the capability
├── InvalidInput        the caller's value would be misread or crash the library; nothing was called
├── WrongState          the right call at the wrong moment: not loaded, busy, paused, closed
│   └── Busy                a run is in progress on this handle
└── NativeCallFailed    a native function answered other than 0; `function` and `status` say which
    ├── LoadFailed          rkllm_init: status, or 0 with a NULL handle
    ├── RunFailed           rkllm_run: status; `context_too_long_likely` when nothing was produced
    │   └── InferenceFailed     the callback reported the ERROR state, or an array never came
    ├── AbortFailed         rkllm_abort
    ├── PromptCacheFailed   rkllm_load_prompt_cache, rkllm_release_prompt_cache
    ├── LoraFailed          rkllm_load_lora
    └── KvCacheFailed       rkllm_clear_kv_cache, rkllm_get_kv_cache_size
"""

from collections.abc import Mapping


class RkllmError(Exception):
    """Base of everything this package raises on purpose."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What a person can do about it, one sentence; empty when nothing."""


class LibraryRefused(RkllmError):
    """The library file cannot be used as it is."""


class Unsupported(RkllmError):
    """The loaded release cannot do this; `capability` names the field of `Capabilities`."""

    def __init__(self, message: str, hint: str = "", *, capability: str = "") -> None:
        super().__init__(message, hint)
        self.capability = capability


class InvalidInput(RkllmError, ValueError):
    """A value was refused before it reached the library."""


class WrongState(RkllmError):
    """The call is not allowed at this moment."""


class Busy(WrongState):
    """A run is in progress; one handle does one thing at a time."""


class NativeCallFailed(RkllmError):
    """A native function reported failure."""

    def __init__(self, function: str, status: int, *, message: str = "", hint: str = "") -> None:
        super().__init__(message or f"{function} answered {status}", hint)
        self.function = function
        self.status = status


class LoadFailed(NativeCallFailed):
    """The model was not loaded; there is no handle."""


class RunFailed(NativeCallFailed):
    """The run ended with a failure status.

    `callbacks` counts every event of the run; `after_abort` tells that the run before this one, or this
    one, was aborted: such a failure says nothing about the prompt (clear the KV cache and try once more).
    """

    def __init__(
        self,
        function: str,
        status: int,
        *,
        message: str = "",
        hint: str = "",
        callbacks: int = 0,
        after_abort: bool = False,
    ) -> None:
        super().__init__(function, status, message=message, hint=hint)
        self.callbacks = callbacks
        self.after_abort = after_abort

    @property
    def context_too_long_likely(self) -> bool:
        """Return whether this looks like a prompt longer than the window: -1 and not one event."""
        return self.status == -1 and self.callbacks == 0 and not self.after_abort


class InferenceFailed(RunFailed):
    """The library reported an inference error, or did not deliver what the mode promises."""


class AbortFailed(NativeCallFailed):
    """The run could not be told to stop."""


class PromptCacheFailed(NativeCallFailed):
    """A prompt-cache file was not loaded or not released."""


class LoraFailed(NativeCallFailed):
    """A LoRA adapter was not loaded."""


class KvCacheFailed(NativeCallFailed):
    """The KV cache was not cleared or not measured."""


_FAILURES: Mapping[str, tuple[type[NativeCallFailed], str]] = {
    "rkllm_init": (
        LoadFailed,
        "the runtime prints the reason on stdout: context longer than the model's limit, fewer CPUs than NPU "
        "cores, no NPU memory, or a model converted for another platform or by another toolkit",
    ),
    "rkllm_run": (RunFailed, "the runtime prints the reason on stdout"),
    "rkllm_abort": (AbortFailed, "end the process when the run does not stop"),
    "rkllm_load_prompt_cache": (
        PromptCacheFailed,
        "delete the file: it belongs to another model, runtime or template",
    ),
    "rkllm_release_prompt_cache": (PromptCacheFailed, "load the model anew"),
    "rkllm_load_lora": (LoraFailed, "an adapter must be converted together with its base model"),
    "rkllm_clear_kv_cache": (KvCacheFailed, "ranges need a paused run with keep_history off"),
    "rkllm_get_kv_cache_size": (KvCacheFailed, ""),
}
"""function → (what its failure is, what to do); functions that are not listed raise `NativeCallFailed`."""


def check(status: int, function: str) -> None:
    """Raise the error of `function` when `status` is not 0, the only success any of them documents."""
    if status:
        raise failure(function, status)


def failure(function: str, status: int) -> NativeCallFailed:
    """Return the error that a failure status of `function` stands for."""
    kind, hint = _FAILURES.get(function, (NativeCallFailed, "the runtime prints the reason on stdout"))
    return kind(function, status, hint=hint)
