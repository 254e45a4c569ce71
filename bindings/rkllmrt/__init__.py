"""Python bindings of Rockchip's librkllmrt.so, runtimes 1.1.0 to 1.3.1: `open_library`, then `Model`.

They know nothing of the daemon and need the standard library only; numpy where arrays are asked for.
Nothing is loaded at import.
"""

from rkllmrt.abi import PAUSE, Group
from rkllmrt.capabilities import Capabilities
from rkllmrt.cores import CpuChoice, big_cores, choose_cpus
from rkllmrt.detection import RELEASES, LibraryFacts, identify
from rkllmrt.errors import (
    AbortFailed,
    Busy,
    InferenceFailed,
    InvalidInput,
    KvCacheFailed,
    LibraryRefused,
    LoadFailed,
    LoraFailed,
    NativeCallFailed,
    PromptCacheFailed,
    RkllmError,
    RunFailed,
    Unsupported,
    WrongState,
    check,
)
from rkllmrt.inputs import (
    AudioEmbeds,
    EmbedInput,
    ImageEmbeds,
    Input,
    MultimodalInput,
    PromptInput,
    TokenInput,
    VideoEmbeds,
)
from rkllmrt.libc import fflush_c, line_buffer_c_stdout
from rkllmrt.library import Library, open_library
from rkllmrt.model import Model
from rkllmrt.params import ModelParams, RunParams, Sampling
from rkllmrt.run import OnToken, OnTokens, PerfStat, RunOutcome

__all__ = [
    "PAUSE",
    "RELEASES",
    "AbortFailed",
    "AudioEmbeds",
    "Busy",
    "Capabilities",
    "CpuChoice",
    "EmbedInput",
    "Group",
    "ImageEmbeds",
    "InferenceFailed",
    "Input",
    "InvalidInput",
    "KvCacheFailed",
    "Library",
    "LibraryFacts",
    "LibraryRefused",
    "LoadFailed",
    "LoraFailed",
    "Model",
    "ModelParams",
    "MultimodalInput",
    "NativeCallFailed",
    "OnToken",
    "OnTokens",
    "PerfStat",
    "PromptCacheFailed",
    "PromptInput",
    "RkllmError",
    "RunFailed",
    "RunOutcome",
    "RunParams",
    "Sampling",
    "TokenInput",
    "Unsupported",
    "VideoEmbeds",
    "WrongState",
    "big_cores",
    "check",
    "choose_cpus",
    "fflush_c",
    "identify",
    "line_buffer_c_stdout",
    "open_library",
]
