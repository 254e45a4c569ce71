"""Tell which release a librkllmrt.so is, from its file alone: nothing is loaded, no code of it runs.

Two witnesses: the version string inside, and the names that it exports. Where they contradict each other the
library is refused, because a wrong layout means garbage parameters at best and a crash at worst. The third
witness, the defaults that the library returns, is heard in `library` when it is loaded.
"""

import mmap
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from rkllmrt.abi import Group
from rkllmrt.elf import Machine, NotElf, read_exports, read_machine
from rkllmrt.errors import LibraryRefused

RELEASES: Mapping[str, Group] = {
    "1.1.0": "A",
    "1.1.1": "A",
    "1.1.2": "A",
    "1.1.3": "A",
    "1.1.4": "A",
    "1.2.0": "B",
    "1.2.1b1": "C",
    "1.2.1": "D",
    "1.2.2": "D",
    "1.2.3": "D",
    "1.3.0": "E",
    "1.3.1": "F",
}
"""Every release whose layout is known, and its ABI group."""

OVERRIDE_HINT = "if you know which release it is, state the version in the configuration"

_VERSION_LITERAL = re.compile(rb"RKLLM SDK \(version:\s*(\d+\.\d+\.\d+\w*)")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(\w*)")
# 1.0.x has rkllm_init and rkllm_run as well, but neither LoRA nor prompt-cache files.
_SINCE_1_1 = frozenset({"rkllm_load_lora", "rkllm_load_prompt_cache"})
_ALWAYS = frozenset({"rkllm_createDefaultParam", "rkllm_init", "rkllm_run", "rkllm_abort", "rkllm_destroy"})


class LibraryFacts(Struct, frozen=True):
    """What a library file says about itself."""

    path: Path
    version: str
    """As the file or the override states it; empty when neither does."""
    group: Group | None
    """None when only loading it can tell D, E and F apart."""
    candidates: tuple[Group, ...]
    """The groups that its symbols allow, oldest first."""
    machine: Machine
    symbols: frozenset[str] | None
    """Exported names; None when the file has no symbol table."""
    warnings: tuple[str, ...] = ()
    known: bool = True
    """The layout belongs to exactly this release; False when it is the nearest that is known."""


def identify(path: str | Path, version: str | None = None) -> LibraryFacts:
    """Return what the file says, without loading it.

    `version` is believed instead of the string in the file. Symbols that contradict it still refuse.

    Raises:
        LibraryRefused: no such file, not a librkllmrt.so, older than 1.1.0, or contradictory.
    """
    path = Path(path)
    machine, symbols, stated = _read(path)
    if symbols is not None:
        _refuse_foreign(path, symbols)
    facts = LibraryFacts(path, "", None, _groups_by_symbols(symbols), machine, symbols)
    if version is None:
        if len(stated) > 1:
            names = ", ".join(sorted(stated))
            raise LibraryRefused(f"{path} states several versions: {names}", OVERRIDE_HINT)
        if not stated:
            return _without_version(facts)
        version = stated.pop()
    elif stated and stated != {version}:
        told = ", ".join(sorted(stated))
        facts = replace(facts, warnings=(f"the library says it is {told}, the configuration says {version}",))
    return _with_version(facts, version)


def group_of(version: str) -> tuple[Group, bool]:
    """Return the ABI group of a release, and whether that is known rather than the nearest guess.

    Raises:
        LibraryRefused: not a version, or older than 1.1.0.
    """
    known = RELEASES.get(version)
    if known is not None:
        return known, True
    match = _VERSION.fullmatch(version)
    if match is None:
        raise LibraryRefused(f"{version!r} is not a runtime version", "a version looks like 1.2.3 or 1.2.1b1")
    release = (int(match[1]), int(match[2]), int(match[3]))
    if release < (1, 1, 0):
        raise LibraryRefused(
            f"runtime {version} is too old", "install librkllmrt 1.1.0 or newer, best 1.2.3 or newer"
        )
    if release >= (1, 3, 1):
        return "F", False
    if release >= (1, 3, 0):
        return "E", False
    if release == (1, 2, 1) and match[4]:
        return "C", False
    if release >= (1, 2, 1):
        return "D", False
    return ("B" if release >= (1, 2, 0) else "A"), False


def _read(path: Path) -> tuple[Machine, frozenset[str] | None, set[str]]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            stated = {found.decode() for found in _VERSION_LITERAL.findall(image)}
            with memoryview(image) as view:
                return read_machine(view), read_exports(view), stated
    except OSError as exc:
        raise LibraryRefused(f"{path}: {exc.strerror or exc}", "check the path of librkllmrt.so") from exc
    except (NotElf, ValueError) as exc:  # mmap answers ValueError to an empty file
        hint = "it may be an incomplete download; take librkllmrt.so from the SDK again"
        raise LibraryRefused(f"{path} is not a shared library", hint) from exc


def _refuse_foreign(path: Path, symbols: frozenset[str]) -> None:
    if missing := _ALWAYS - symbols:
        names = ", ".join(sorted(missing))
        raise LibraryRefused(f"{path} is not librkllmrt: it lacks {names}", "librknnrt.so is another library")
    if not symbols >= _SINCE_1_1:
        raise LibraryRefused(
            f"{path} is older than 1.1.0", "install librkllmrt 1.1.0 or newer, best 1.2.3 or newer"
        )


def _groups_by_symbols(symbols: frozenset[str] | None) -> tuple[Group, ...]:
    if symbols is None:
        return ("A", "B", "C", "D", "E", "F")
    if "rkllm_clear_kv_cache" not in symbols:
        return ("A",)
    if "rkllm_get_kv_cache_size" not in symbols:
        return ("B", "C")
    return ("D", "E", "F")


def _with_version(facts: LibraryFacts, version: str) -> LibraryFacts:
    group, known = group_of(version)
    if group not in facts.candidates:
        belongs = " or ".join(release for release, of in RELEASES.items() if of in facts.candidates)
        raise LibraryRefused(
            f"{facts.path}: version {version} contradicts its symbols, which belong to {belongs}",
            OVERRIDE_HINT,
        )
    warnings = facts.warnings
    if not known:
        nearest = next(release for release, of in reversed(list(RELEASES.items())) if of == group)
        warnings += (f"runtime {version} is not known; it is used like {nearest}",)
    return replace(facts, version=version, group=group, warnings=warnings, known=known)


def _without_version(facts: LibraryFacts) -> LibraryFacts:
    warning = "the library does not state its version; its layout is judged by its symbols and defaults"
    group = facts.candidates[0] if len(facts.candidates) == 1 else None
    if facts.candidates == ("B", "C"):
        group = "C"  # B reads only the front part of what C reads
    return replace(facts, group=group, warnings=(*facts.warnings, warning), known=group == "A")
