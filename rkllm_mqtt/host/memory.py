"""Memory of the board and of one process, in MB of 1,048,576 bytes."""

import os
from pathlib import Path

from msgspec import Struct

from rkllm_mqtt.host.kernelfile import read_text

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MB = 1_048_576


class Memory(Struct, frozen=True):
    """The board's memory; None where the kernel does not tell."""

    total_mb: int | None
    available_mb: int | None
    """What can be had without swapping (`MemAvailable`)."""


def read_memory(root: Path = Path("/")) -> Memory:
    """Return total and available memory."""
    return parse_meminfo(read_text(root / "proc/meminfo") or "")


def parse_meminfo(text: str) -> Memory:
    """Read the lines `MemTotal:  16316548 kB` and `MemAvailable:`."""
    kilobytes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            kilobytes[name] = int(words[0])
    total, available = kilobytes.get("MemTotal"), kilobytes.get("MemAvailable")
    return Memory(
        total_mb=None if total is None else total // 1024,
        available_mb=None if available is None else available // 1024,
    )


def rss_mb(pid: int | None = None, *, root: Path = Path("/")) -> float | None:
    """Return the resident memory of a process (this one by default), one decimal; None when it is gone."""
    fields = (read_text(root / f"proc/{'self' if pid is None else pid}/statm") or "").split()
    if len(fields) < 2 or not fields[1].isdigit():
        return None
    return round(int(fields[1]) * PAGE_BYTES / MB, 1)
