"""What can be known of a model file without loading it: what it is, and what is certainly or probably wrong.

Rule 1: a file is opened read-only and less than 2 MB of it are read, however large it is.
Rule 2: a problem is `certain` only when the runtime cannot possibly load the file; all else is a suspicion.
"""

import os
import re
import stat
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.host.modelkind import HEAD_BYTES, ModelKind, ModelProblem, recognise

MB = 1_048_576
TAIL_BYTES = MB
"""A tail of so many zero bytes is the mark of a preallocated, interrupted download."""
SMALLEST_BYTES = 16 * MB
"""Smaller than any converted language model that is useful; the smallest published ones exceed 100 MB."""

_PLATFORM = re.compile(r"(?<![a-z0-9])(rk\d{4}|rv\d{4}b?)(?![0-9])", re.IGNORECASE)
_SIMULATOR_KEY = re.compile(r"^([a-z_]+)\s*:\s*(.*?)\s*$")


class ModelFile(Struct, frozen=True):
    """One inspected file."""

    path: Path
    exists: bool
    size_bytes: int
    kind: ModelKind
    platform: str | None
    """`rk3588`, ...: declared in a simulator's model, else guessed from the file's name."""
    context_tokens: int | None
    """The model's own limit, where it can be read (simulator's models only)."""
    problems: tuple[ModelProblem, ...]

    @property
    def simulated(self) -> bool:
        """Say whether only the simulator can run it."""
        return self.kind is ModelKind.SIMULATOR

    @property
    def loadable(self) -> bool:
        """Say whether nothing is certainly wrong with it."""
        return not any(problem.certain for problem in self.problems)


def inspect_model(path: Path) -> ModelFile:
    """Return what is known of the file; a missing or unreadable one is a problem, not an exception."""
    platform = _platform_in_name(path.name)
    found = ModelFile(path, False, 0, ModelKind.UNKNOWN, platform, None, ())
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return replace(found, exists=True, problems=(_not_a_file(path),))
        with path.open("rb") as file:
            return _inspect(found, file.fileno(), status.st_size)
    except OSError as exc:
        return replace(
            found, exists=not isinstance(exc, FileNotFoundError), problems=(_unreadable(path, exc),)
        )


def file_fault(file: ModelFile, *, native: bool, board: str | None, trusted: bool) -> Fault | None:
    """Return why a file is not to be loaded; None when it may.

    Args:
        file: As it was inspected.
        native: Rockchip's library would load it; else the simulator.
        board: What a model must be converted for; None where nobody knows.
        trusted: A person has named this very file, so a suspicion does not count.
    """
    problems = sorted(file.problems, key=lambda problem: not problem.certain)
    if problems and (problems[0].certain or (not trusted and file.kind is ModelKind.RKLLM)):
        return Fault(Code.MODEL_ERROR, f"{file.path} {problems[0].sentence}", problems[0].hint)
    if file.kind is ModelKind.RKLLM and not native:
        hint = "Install librkllmrt.so, or name it in `runtime.library`."
        return Fault(Code.MODEL_ERROR, f"{file.path} needs the NPU, but the simulator is used", hint)
    if native and board is not None and file.platform is not None and file.platform != board:
        said = f"{file.path} is for {file.platform} by its name, this board is an {board}"
        hint = f"Convert it with target_platform={board!r}; where only its name is wrong, rename it."
        return Fault(Code.MODEL_ERROR, said, hint)
    return None


def size_for_people(size_bytes: int) -> str:
    """Return a size as `1.74 GB`, `640 MB` or `812 bytes`, in powers of 1,024."""
    megabytes = size_bytes / MB
    if megabytes >= 1024:
        return f"{megabytes / 1024:.2f} GB"
    return f"{megabytes:.0f} MB" if megabytes >= 1 else f"{size_bytes} bytes"


def _inspect(found: ModelFile, descriptor: int, size: int) -> ModelFile:
    found = replace(found, exists=True, size_bytes=size)
    head = os.pread(descriptor, HEAD_BYTES, 0)
    kind, problem = recognise(head, size)
    problems = [problem] if problem else []
    if kind is ModelKind.SIMULATOR:
        return _simulator_model(replace(found, kind=kind), head)
    if problem is None or not problem.certain:
        problems += _damage(found.path, descriptor, size)
    return replace(found, kind=kind, problems=tuple(problems))


def _damage(path: Path, descriptor: int, size: int) -> list[ModelProblem]:
    problems = []
    again = "Download or copy the file again and compare its size or checksum with the source's."
    if size < SMALLEST_BYTES:
        sentence = f"is only {size / MB:.1f} MB, less than any language model"
        problems.append(ModelProblem("too_small", sentence, again))
    hole = _first_hole(descriptor, size)
    if hole is not None:
        sentence = f"has a hole that was never written, from {hole / MB:.0f} MB on: an interrupted download"
        problems.append(ModelProblem("sparse", sentence, again))
    elif size >= 2 * TAIL_BYTES and not any(os.pread(descriptor, TAIL_BYTES, size - TAIL_BYTES)):
        problems.append(ModelProblem("zero_tail", "ends in zeros: an interrupted download", again))
    if path.with_name(path.name + ".aria2").exists():
        sentence = "is still being downloaded: its .aria2 file lies beside it"
        problems.append(ModelProblem("incomplete", sentence, "Let the download end, or start it again."))
    return problems


def _first_hole(descriptor: int, size: int) -> int | None:
    try:
        hole = os.lseek(descriptor, 0, os.SEEK_HOLE)
    except OSError:  # a file system that knows no holes
        return None
    # A last page that is only partly filled is none, and some file systems round up to their block.
    return hole if hole + TAIL_BYTES < size else None


def _simulator_model(found: ModelFile, head: bytes) -> ModelFile:
    keys: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").splitlines()[1:]:
        matched = _SIMULATOR_KEY.match(line)
        if matched:
            keys.setdefault(matched[1], matched[2])
    limit = keys.get("max_context", "")
    return replace(
        found,
        platform=keys["platform"].lower() if "platform" in keys else found.platform,
        context_tokens=int(limit) if limit.isdecimal() else None,
    )


def _platform_in_name(name: str) -> str | None:
    matched = _PLATFORM.search(name)
    return matched[1].lower() if matched else None


def _not_a_file(path: Path) -> ModelProblem:
    if path.is_dir():
        return ModelProblem(
            "not_a_file",
            "is a folder",
            "Name the .rkllm file inside it (`rkllm-mqtt models` lists them).",
            True,
        )
    return ModelProblem("not_a_file", "is no regular file", "Name the .rkllm file itself.", True)


def _unreadable(path: Path, error: OSError) -> ModelProblem:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return ModelProblem(
                "missing", "is a link to a file that does not exist", "Repair the link.", True
            )
        hint = "Copy the converted model there, or correct `file` in the configuration."
        return ModelProblem("missing", "does not exist", hint, True)
    hint = "Give the daemon's user the right to read the file and to enter its folders."
    return ModelProblem("unreadable", f"cannot be read: {error.strerror}", hint, True)
