"""What is read from ELF files."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rkllmrt.elf import Machine, NotElf, own_machine, read_exports, read_machine


def elf32(names: list[str]) -> bytes:
    """Return a minimal 32-bit ARM library: header, .dynsym, .dynstr, section table."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    symbols = b"\0" * 16
    for name in names:
        defined = 0 if name.startswith("imported") else 1
        symbols += struct.pack(
            "<IIIBBH", strings.index(b"\0" + name.encode() + b"\0") + 1, 0, 0, 0x12, 0, defined
        )
    at = 52 + len(symbols) + len(strings)
    header = b"\x7fELF\x01\x01\x01" + b"\0" * 9
    header += struct.pack("<HHIIIIIHHHHHH", 3, 40, 1, 0, 0, at, 0, 52, 0, 0, 40, 3, 0)
    sections = b"\0" * 40
    sections += struct.pack("<10I", 0, 11, 0, 0, 52, len(symbols), 2, 0, 4, 16)
    sections += struct.pack("<10I", 0, 3, 0, 0, 52 + len(symbols), len(strings), 0, 0, 1, 0)
    return header + symbols + strings + sections


def test_exports_of_a_32_bit_library_are_read() -> None:
    image = elf32(["rkllm_init", "imported_malloc", "rkllm_run"])
    assert read_machine(image) == Machine("arm", 32)
    assert read_exports(image) == {"rkllm_init", "rkllm_run"}


def test_only_what_a_library_defines_counts_as_exported(compile_c: Callable[..., Path]) -> None:
    path = compile_c(
        '#include <stdio.h>\nint here(void) { return puts("x"); }\nstatic int hidden(void) { return 1; }\n'
        "int there(void) { return hidden(); }\n"
    )
    exports = read_exports(path.read_bytes())
    assert exports is not None
    assert {"here", "there"} <= exports
    assert not {"puts", "hidden"} & exports


def test_a_stripped_library_still_exports(compile_c: Callable[..., Path], tmp_path: Path) -> None:
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", "-o", stripped, compile_c("int here(void) { return 1; }")], check=True)
    assert "here" in (read_exports(stripped.read_bytes()) or ())


def test_a_file_without_a_section_table_says_so() -> None:
    image = bytearray(elf32(["rkllm_init"]))
    image[32:36] = bytes(4)
    assert read_exports(bytes(image)) is None


def test_the_own_machine_is_that_of_the_interpreter() -> None:
    assert own_machine().bits == 8 * struct.calcsize("P")


@pytest.mark.parametrize("image", [b"", b"\x7fELF", b"MZ" + b"\0" * 100, b"\x7fELF\x02\x02" + b"\0" * 100])
def test_what_is_no_little_endian_elf_file_is_told(image: bytes) -> None:
    with pytest.raises(NotElf):
        read_machine(image)
