"""Build the simulated librkllmrt.so on demand, one library per release, and find the shipped models.

Needs a C compiler the first time only: libraries are kept in the user's cache directory under a name that
contains a hash of the sources and of the compiler. Knows nothing of the bindings and loads nothing.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import MappingProxyType

SOURCES = Path(__file__).parent
MODELS = SOURCES / "models"
"""Folder of the shipped models: demo.sim, instant.sim, origin.sim, faults.sim."""

VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "1.1.0": 1,
        "1.1.1": 1,
        "1.1.2": 1,
        "1.1.3": 1,
        "1.1.4": 1,
        "1.2.0": 2,
        "1.2.1b1": 3,
        "1.2.1": 4,
        "1.2.2": 4,
        "1.2.3": 4,
        "1.3.0": 5,
        "1.3.1": 6,
    }
)
"""Runtime releases that can be imitated, each with its ABI group: 1 = A (1.1.x) to 6 = F (1.3.1)."""

MARKER = b"rkllm-simulator"
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-fvisibility=hidden", "-pthread")


class SimulatorError(RuntimeError):
    """The simulator cannot be built; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class CompilerMissing(SimulatorError):
    """No C compiler was found and no library of these sources is in the cache."""


class BuildFailed(SimulatorError):
    """The compiler refused the sources; its output is in the message."""


def demo_model() -> Path:
    """Return the model that `rkllm-mqtt demo` runs: paced like Qwen2.5 1.5B on an RK3588."""
    return MODELS / "demo.sim"


def is_simulator(path: Path) -> bool:
    """Return whether the library file is a build of this simulator; reads the bytes, loads nothing.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(MARKER) >= 0


def build(version: str = "1.3.1", *, cc: str | None = None, directory: Path | None = None) -> Path:
    """Return the library that imitates a release, compiling it first where it is not in the cache.

    Several processes may build at once: each compiles in a folder of its own and renames the result.

    Args:
        version: A key of `VERSIONS`.
        cc: C compiler; default: the environment's CC, else cc, gcc or clang, whichever is found first.
        directory: Where libraries are kept; default: rkllmrt in $XDG_CACHE_HOME, else in ~/.cache.

    Raises:
        ValueError: The version is none of `VERSIONS`.
        CompilerMissing: There is no compiler, and no earlier build to fall back on.
        BuildFailed: The compiler reported an error, or the cache directory cannot be written.
    """
    if version not in VERSIONS:
        raise ValueError(f"unknown runtime release {version!r}; known: {', '.join(VERSIONS)}")
    kept = directory or _cache_directory()
    compiler = _find_compiler(cc)
    if compiler is None:
        return _earlier_build(kept, version)
    key = f"{_source_hash()}-{_compiler_hash(compiler)}"
    library = kept / f"librkllmrt-{version}-{key}.so"
    if library.exists():
        return library
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=kept) as folder:
            work = Path(folder)
            core = kept / f"core-{key}.o"
            if not core.exists():
                _compile_core(compiler, work).rename(core)
            _link(compiler, version, core, work).rename(library)
    except OSError as error:
        hint = f"Make {kept} writable, or set XDG_CACHE_HOME to a folder that is."
        raise BuildFailed(f"cannot build the simulator in {kept}: {error}", hint) from error
    return library


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():
        return Path(base) / "rkllmrt"
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no such user in the password file: containers
        return _private_folder()
    return home / ".cache" / "rkllmrt" if home.is_dir() else _private_folder()


def _private_folder() -> Path:
    """Return a folder for users without a home; nobody else could have put a library there to be loaded."""
    folder = Path(tempfile.gettempdir()) / f"rkllmrt-{os.getuid()}"
    hint = "Set XDG_CACHE_HOME to a folder that this user can write."
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise BuildFailed(f"this user has no home, and {folder} cannot be used: {error}", hint) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise BuildFailed(f"this user has no home, and {folder} is not a folder of its own", hint)
    return folder


def _find_compiler(cc: str | None) -> str | None:
    wanted = cc or os.environ.get("CC")
    for name in (wanted,) if wanted else ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return found
    return None


def _earlier_build(kept: Path, version: str) -> Path:
    builds = sorted(kept.glob(f"librkllmrt-{version}-{_source_hash()}-*.so"))
    if builds:
        return builds[0]
    raise CompilerMissing(
        "no C compiler found to build the simulated NPU runtime",
        "Install one (Debian, Ubuntu: apt install gcc libc6-dev) or name it in the environment variable CC.",
    )


@cache
def _source_hash() -> str:
    digest = hashlib.sha256(repr(FLAGS).encode())
    for path in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _compiler_hash(compiler: str) -> str:
    told = subprocess.run([compiler, "--version"], capture_output=True, check=False)
    return hashlib.sha256(os.fsencode(compiler) + told.stdout).hexdigest()[:8]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        hint = "Is the C library's header package installed (Debian, Ubuntu: apt install libc6-dev)?"
        raise BuildFailed(f"{' '.join(command)}\n{done.stderr}", hint)


def _compile_core(compiler: str, work: Path) -> Path:
    """Compile everything that is the same in all releases into one object."""
    sources = [path for path in sorted(SOURCES.glob("sim_*.c")) if path.name != "sim_api.c"]
    objects = [work / f"{path.stem}.o" for path in sources]
    commands = [
        [compiler, *FLAGS, "-c", str(source), "-o", str(target)]
        for source, target in zip(sources, objects, strict=True)
    ]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(_run, commands))
    core = work / "core.o"
    _run([compiler, "-r", "-nostdlib", *map(str, objects), "-o", str(core)])
    return core


def _link(compiler: str, version: str, core: Path, work: Path) -> Path:
    library = work / "librkllmrt.so"
    macros = [f"-DRKLLM_ABI_GROUP={VERSIONS[version]}", f'-DRKLLM_SIM_VERSION="{version}"']
    _run([compiler, *FLAGS, *macros, "-shared", str(SOURCES / "sim_api.c"), str(core), "-o", str(library)])
    return library
