"""Load a librkllmrt.so, give every function its types, and hear the third witness: its defaults."""

import ctypes
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from rkllmrt import abi_a, abi_b, abi_c, abi_d, abi_e, abi_f
from rkllmrt.abi import Abi, Composite, Group, composites, prototype
from rkllmrt.capabilities import Capabilities, capabilities_of
from rkllmrt.detection import OVERRIDE_HINT, LibraryFacts, identify
from rkllmrt.elf import own_machine
from rkllmrt.errors import LibraryRefused, Unsupported, check

ABIS: Mapping[Group, Abi] = {
    abi.group: abi for abi in (abi_a.ABI, abi_b.ABI, abi_c.ABI, abi_d.ABI, abi_e.ABI, abi_f.ABI)
}

_DOCUMENTED = {"top_p": 0.9, "temperature": 0.8, "repeat_penalty": 1.1}
_DOCUMENTED_EXTEND = {"embed_flash": 1, "enabled_cpus_num": 4}


class Library:
    """A loaded runtime: its functions, typed, and what it can do. Made by `open_library`; never unloaded."""

    def __init__(self, facts: LibraryFacts, abi: Abi, native: ctypes.CDLL) -> None:
        self.path = facts.path
        self.version = facts.version
        """Empty when neither the file nor the caller stated one."""
        self.group: Group = abi.group
        self.warnings = facts.warnings
        """Sentences for a person; also about what `capabilities` leaves out because of them."""
        self.abi = abi
        self.structs: Mapping[str, Composite] = composites(abi)
        self.capabilities: Capabilities = capabilities_of(abi, stride_known=facts.known)
        self._functions: dict[str, Callable[..., Any]] = _typed_functions(facts.path, abi, native)

    def call(self, function: str, *arguments: object) -> None:
        """Call a native function and raise the error of `errors.check` when it does not answer 0."""
        check(self.status_of(function, *arguments), function)

    def status_of(self, function: str, *arguments: object) -> int:
        """Call a native function and return its answer.

        Raises:
            Unsupported: this release has no such function.
        """
        entry = self._functions.get(function)
        if entry is None:
            raise Unsupported(
                f"runtime {self.version or self.group} has no {function}", "use a newer runtime"
            )
        status: int = entry(*arguments)
        return status

    def require(self, capability: str, what: str) -> None:
        """Raise `Unsupported`, naming `what` was asked, unless that field of `Capabilities` is true."""
        if not getattr(self.capabilities, capability):
            name = self.version or f"of group {self.group}"
            raise Unsupported(
                f"runtime {name} cannot take {what}", "use a newer runtime", capability=capability
            )

    def default_block(self) -> bytearray:
        """Return what rkllm_createDefaultParam wrote: RKLLMParam in front, 512 bytes in all.

        What the library did not write is arbitrary. The strings that it points to are the library's own.
        """
        return _default_block(self._functions["rkllm_createDefaultParam"])

    def default_params(self) -> dict[str, object]:
        """Return the library's defaults by C field name, those of `extend_param` among them.

        enabled_cpus_mask is arbitrary unless 4 or 8 CPUs are online: the library does not write it then.
        """
        params: Any = self.structs["RKLLMParam"].from_buffer(self.default_block())
        names = [name for name, _ in self.abi.structs["RKLLMParam"] if name != "extend_param"]
        values = {name: _plain(getattr(params, name)) for name in names}
        extend = [name for name, _ in self.abi.structs["RKLLMExtendParam"] if name != "reserved"]
        return values | {name: getattr(params.extend_param, name) for name in extend}


def open_library(path: str | Path, version: str | None = None) -> Library:
    """Load the runtime at `path`.

    RKLLM_LOG_LEVEL must be in the environment before this: the library reads it only when it is loaded.

    `version` is believed instead of the version string in the file; symbols and defaults keep their veto.

    Raises:
        LibraryRefused: it cannot be loaded, is too old, or its version, symbols and defaults contradict
            each other; `hint` says what to do.
    """
    facts = identify(path, version)
    if facts.machine != (own := own_machine()):
        raise LibraryRefused(
            f"{path} is for {facts.machine}, this Python is for {own}",
            "take the library of the right folder: aarch64 for 64-bit systems, armhf for 32-bit ones",
        )
    try:
        native = ctypes.CDLL(str(facts.path.resolve()))
    except OSError as exc:
        hint = "it needs libgomp.so.1 (Debian: apt install libgomp1)" if "libgomp" in str(exc) else ""
        raise LibraryRefused(f"{path} cannot be loaded: {exc}", hint) from exc
    # Declared alike in every group, so it can be called before the group is certain.
    default_params = _typed_function(facts.path, abi_a.ABI, native, "rkllm_createDefaultParam")
    facts = judge_by_defaults(facts, groups_by_defaults(_default_block(default_params)))
    if facts.group is None:
        raise LibraryRefused(f"{path}: neither version, symbols nor defaults tell its layout", OVERRIDE_HINT)
    return Library(facts, ABIS[facts.group], native)


def groups_by_defaults(block: bytes | bytearray) -> frozenset[Group]:
    """Return the groups in whose layout the documented defaults are found; empty when in none.

    E and F are asked before B to D: bytes that the library leaves unwritten may hold an old RKLLMParam, and
    D's places lie there in E's layout, while E's places are always written in D's.
    """
    found = [group for group in ABIS if _documented_in(ABIS[group], block)]
    newest = [group for group in found if group in "EF"]
    return frozenset(newest or found)


def judge_by_defaults(facts: LibraryFacts, groups: frozenset[Group]) -> LibraryFacts:
    """Return `facts` confirmed, or completed where the group was open, by what the defaults say.

    Raises:
        LibraryRefused: the defaults lie where another layout has them.
    """
    allowed = [group for group in facts.candidates if group in groups]
    if facts.group is None:
        return replace(facts, group=allowed[-1] if allowed else None, known=allowed == ["D"])
    if not groups:
        warning = "the library's default parameters are not the documented ones; its layout is not confirmed"
        return replace(facts, warnings=(*facts.warnings, warning))
    if facts.group not in groups:
        raise LibraryRefused(
            f"{facts.path}: version {facts.version or 'unknown'} means layout {facts.group}, "
            f"but its defaults lie where {' or '.join(sorted(groups))} has them",
            OVERRIDE_HINT,
        )
    return facts


def _documented_in(abi: Abi, block: bytes | bytearray) -> bool:
    structs = composites(abi)
    params: Any = structs["RKLLMParam"].from_buffer_copy(block)
    extend = _DOCUMENTED_EXTEND if abi.has("RKLLMExtendParam", "embed_flash") else {}
    return all(getattr(params, name) == _float32(value) for name, value in _DOCUMENTED.items()) and all(
        getattr(params.extend_param, name) == value for name, value in extend.items()
    )


def _default_block(function: Callable[..., Any]) -> bytearray:
    return bytearray(bytes(function()))


def _typed_functions(path: Path, abi: Abi, native: ctypes.CDLL) -> dict[str, Callable[..., Any]]:
    return {name: _typed_function(path, abi, native, name) for name in abi.functions}


def _typed_function(path: Path, abi: Abi, native: ctypes.CDLL, name: str) -> Callable[..., Any]:
    try:
        function = native[
            name
        ]  # a fresh object: attribute access would share it with other users of the CDLL
    except AttributeError as exc:
        raise LibraryRefused(f"{path} lacks {name}, which layout {abi.group} has", OVERRIDE_HINT) from exc
    function.restype, function.argtypes = prototype(abi.functions, name)
    return function


def _float32(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def _plain(value: object) -> object:
    """Return a C float without the digits that its 32 bits do not have; anything else as it is."""
    return float(f"{value:.7g}") if isinstance(value, float) else value
