"""Recognise a model file by its first bytes, and the files that people put in its place by mistake."""

from enum import StrEnum

from msgspec import Struct

HEAD_BYTES = 65_536

RKLLM_MAGIC = bytes.fromhex("daeeb336")
"""First bytes of converted models, as two independent users published them (toolkits up to 1.3.1).

Rockchip does not document the format, so another beginning is a suspicion, not an error.
"""
SIMULATOR_LINE = b"rkllm-simulator 1"


class ModelKind(StrEnum):
    """What a file is, by its first bytes."""

    RKLLM = "rkllm"
    SIMULATOR = "simulator"
    FOREIGN = "foreign"
    """Certainly something else."""
    UNKNOWN = "unknown"


class ModelProblem(Struct, frozen=True):
    """One thing that is wrong with a file."""

    code: str
    sentence: str
    """Continues the file's name: `is a Git LFS pointer, not the model`."""
    hint: str
    certain: bool = False
    """The runtime cannot load it; False: it probably cannot."""


_CONVERT = "Convert the original model with Rockchip's rkllm-toolkit, or download a converted .rkllm file."
_PAGE = (
    "The download saved a page instead of the model: use the direct link, and log in where that is needed."
)

_FOREIGN = (
    (b"version https://git-lfs", "lfs_pointer", "is a Git LFS pointer, not the model", "Run `git lfs pull`."),
    (b"GGUF", "gguf", "is a GGUF model for llama.cpp", _CONVERT),
    (b"PK\x03\x04", "zip", "is a ZIP archive or a PyTorch checkpoint", f"Unpack it. {_CONVERT}"),
    (b"\x1f\x8b", "gzip", "is compressed with gzip", "Unpack it with `gunzip`."),
    (b"\xfd7zXZ\x00", "xz", "is compressed with xz", "Unpack it with `unxz`."),
    (b"\x28\xb5\x2f\xfd", "zstd", "is compressed with zstd", "Unpack it with `unzstd`."),
    (b"7z\xbc\xaf\x27\x1c", "7z", "is a 7z archive", "Unpack it with `7z x`."),
    (
        b"RKNN",
        "rknn",
        "is an .rknn network for the plain NPU runtime",
        "A language model needs an .rkllm file.",
    ),
    (b"\x7fELF", "elf", "is a program or library", "Name the .rkllm file."),
    (b"{", "json", "is a JSON text", _PAGE),
)


def recognise(head: bytes, size: int) -> tuple[ModelKind, ModelProblem | None]:
    """Return what a file is, and what is wrong with that.

    Args:
        head: The first `HEAD_BYTES` bytes, or all of a shorter file.
        size: Of the whole file, bytes.
    """
    if head.startswith(RKLLM_MAGIC):
        return ModelKind.RKLLM, None
    if head.split(b"\n", 1)[0].rstrip(b"\r \t") == SIMULATOR_LINE:
        return ModelKind.SIMULATOR, None
    problem = _foreign(head, size)
    if problem:
        return ModelKind.FOREIGN, problem
    hint = "If the runtime loads it, all is well; else download it again or convert it anew."
    return ModelKind.UNKNOWN, ModelProblem("unknown_format", "does not begin as .rkllm files do", hint)


def _foreign(head: bytes, size: int) -> ModelProblem | None:
    if size == 0:
        return ModelProblem("empty", "is empty", "Download or copy it again.", certain=True)
    if not any(head):
        return ModelProblem("zeros", "begins with zeros only", "Download or copy it again.", certain=True)
    if b"<html" in head[:2048].lower() or head.lstrip()[:9].lower() == b"<!doctype":
        return ModelProblem("html", "is a web page", _PAGE, certain=True)
    for magic, code, sentence, hint in _FOREIGN:
        if head.startswith(magic):
            return ModelProblem(code, sentence, hint, certain=True)
    # safetensors: the length of its JSON header, little-endian, then the header.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < max(size, 1):
        return ModelProblem("safetensors", "is a safetensors checkpoint", _CONVERT, certain=True)
    return None
