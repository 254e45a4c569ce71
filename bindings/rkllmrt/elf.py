"""Read from an ELF file what can be known without loading it: machine, word size, exported names."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

Buffer = bytes | memoryview

_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_SHT_DYNSYM = 11
_HEADER_BYTES = 64


class NotElf(ValueError):
    """The bytes are no little-endian ELF file."""


class Machine(Struct, frozen=True):
    """What a file was compiled for; equal machines can live in one process."""

    name: str
    """As uname prints it, or `machine <number>`."""
    bits: int
    """32 or 64."""

    def __str__(self) -> str:
        return f"{self.name} ({self.bits} bit)"


class _Section(NamedTuple):
    kind: int
    offset: int
    size: int
    link: int
    entry_size: int


def read_machine(image: Buffer) -> Machine:
    """Return the machine that `image`, at least the first 64 bytes of a file, is for.

    Raises:
        NotElf: it is something else, or big-endian, which no Rockchip system is.
    """
    if (
        len(image) < _HEADER_BYTES
        or bytes(image[:4]) != b"\x7fELF"
        or image[5] != 1
        or image[4] not in (1, 2)
    ):
        raise NotElf
    number: int = struct.unpack_from("<H", image, 18)[0]
    return Machine(_MACHINES.get(number, f"machine {number}"), 64 if image[4] == 2 else 32)


def own_machine() -> Machine:
    """Return the machine of this very interpreter: on a 64-bit kernel it may still be 32-bit."""
    with Path("/proc/self/exe").open("rb") as file:
        return read_machine(file.read(_HEADER_BYTES))


def read_exports(image: Buffer) -> frozenset[str] | None:
    """Return the names that the library `image` defines for others (.dynsym), None when it has no such table.

    Raises:
        NotElf: `image` is no ELF file, or its tables point outside of it.
    """
    wide = read_machine(image).bits == 64
    try:
        sections = list(_sections(image, wide=wide))
        table = next((section for section in sections if section.kind == _SHT_DYNSYM), None)
        if table is None:
            return None
        return frozenset(_defined(image, table, sections[table.link], wide=wide))
    except (struct.error, IndexError, ValueError, OverflowError) as exc:
        raise NotElf from exc


def _sections(image: Buffer, *, wide: bool) -> Iterator[_Section]:
    (start,) = struct.unpack_from("<Q", image, 40) if wide else struct.unpack_from("<I", image, 32)
    entry_size, count = struct.unpack_from("<HH", image, 58 if wide else 46)
    for number in range(count if start else 0):
        fields = struct.unpack_from("<IIQQQQIIQQ" if wide else "<10I", image, start + number * entry_size)
        yield _Section(kind=fields[1], offset=fields[4], size=fields[5], link=fields[6], entry_size=fields[9])


def _defined(image: Buffer, table: _Section, strings: _Section, *, wide: bool) -> Iterator[str]:
    names = bytes(image[strings.offset : strings.offset + strings.size])
    for position in range(table.offset, table.offset + table.size, table.entry_size):
        name, section = _symbol(image, position, wide=wide)
        if section:
            yield names[name : names.index(b"\0", name)].decode("ascii", "replace")


def _symbol(image: Buffer, position: int, *, wide: bool) -> tuple[int, int]:
    """Return (offset of the name, section number; 0 means that it is defined elsewhere)."""
    if wide:
        name, section = struct.unpack_from("<I2xH", image, position)
    else:
        name, section = struct.unpack_from("<I10xH", image, position)
    return name, section
