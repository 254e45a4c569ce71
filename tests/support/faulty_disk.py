"""A disk that fails on demand: a library loaded before the C library, and what a power cut leaves of a trace.

`FaultyDisk` starts one process that forks for each case, so that hundreds of faults take seconds.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from random import Random
from typing import Self

HERE = Path(__file__).parent
SECTOR = 512


class Call(IntFlag):
    """Kinds of calls, as in faulty_disk.c."""

    OPEN = 1
    WRITE = 2
    SYNC = 4
    CUT = 8
    REMOVE = 16
    ALLOCATE = 32
    RENAME = 64
    READ = 128


EVERY_CHANGE = Call.OPEN | Call.WRITE | Call.SYNC | Call.CUT | Call.REMOVE | Call.ALLOCATE | Call.RENAME


@dataclass(frozen=True, slots=True)
class Fault:
    """Calls `first` to `last` of these kinds fail; `first` 0 lets all succeed."""

    kinds: Call = EVERY_CHANGE
    first: int = 0
    last: int = 0
    error: int = errno.EIO
    is_short: bool = False
    """The first of them, if it writes, stores half of its bytes before."""


class FaultyDisk:
    """Runs a function of a module of this folder in processes whose disk fails."""

    def __init__(self, folder: Path, target: str) -> None:
        """Compile the library and start the process.

        Args:
            folder: For the library and nothing else.
            target: `module:function`; called with the folder of the case, and a function that notes a word.
        """
        library = folder / "faulty_disk.so"
        line = [
            os.environ.get("CC", "cc"),
            "-O1",
            "-shared",
            "-fPIC",
            str(HERE / "faulty_disk.c"),
            "-pthread",
        ]
        subprocess.run([*line, "-o", str(library)], check=True)
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "faulty_disk_child.py"), target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(library)},
        )

    def run(self, folder: Path, fault: Fault, *, trace: Path | None = None) -> tuple[list[str], int, int]:
        """Run one case in `folder`; return its notes, its number of calls of these kinds, and its status.

        Args:
            folder: Must exist; calls on files in it count.
            fault: What fails.
            trace: Gets a record of each call and note.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        notes = folder.with_suffix(".notes")
        words = (folder, notes, int(fault.kinds), fault.first, fault.last, fault.error, int(fault.is_short))
        print(*words, trace or "-", sep="\t", file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().split()
        assert answer, "the process is gone"
        told = notes.read_text().splitlines()
        notes.unlink()
        return told, int(answer[1]), int(answer[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@dataclass(frozen=True, slots=True)
class Record:
    """One call that succeeded: C create, W write, S sync, T truncate, A allocate, U unlink; N is a note."""

    kind: str
    name: str
    offset: int
    content: bytes


def read_trace(path: Path) -> Iterator[Record]:
    """Yield the records of a trace in order."""
    with path.open("rb") as file:
        while head := file.readline():
            kind, offset, length, name = head.decode().rstrip("\n").split(" ", 3)
            yield Record(kind, name, int(offset), file.read(int(length)) if kind == "W" else b"")


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Record] = field(default_factory=list)

    def now(self) -> bytearray:
        content = bytearray(self.durable)
        for record in self.unsynced:
            _apply(content, record)
        return content

    def some(self, random: Random) -> bytearray:
        """Return the content when the disk had written any of the unsynced sectors, in any order."""
        content = bytearray(self.durable)
        for record in self.unsynced:
            if record.kind != "W":
                if random.random() < 0.5:
                    _apply(content, record)
                continue
            for start in range(0, len(record.content), SECTOR):
                if random.random() < 0.5:
                    part = record.content[start : start + SECTOR]
                    _apply(content, Record("W", record.name, record.offset + start, part))
        return content


def _apply(content: bytearray, record: Record) -> None:
    end = record.offset + len(record.content)
    if record.kind == "T":
        del content[record.offset :]
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if record.kind == "W":
        content[record.offset : end] = record.content


class PowerCut:
    """The files of a folder as records go by, and what the disk may hold when the power fails now."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}

    def apply(self, record: Record, *, lie: bool = False) -> None:
        """Let one call happen; a sync that is a `lie` does nothing."""
        if record.kind == "C":
            self._files[record.name] = _File()
        elif record.kind == "U":
            self._files.pop(record.name, None)
        elif record.kind == "S" and record.name == ".":
            if not lie:
                self._durable_names = dict(self._files)
        elif record.kind == "S":
            if not lie:
                file = self._files[record.name]
                file.durable, file.unsynced = file.now(), []
        elif record.kind in "WTA":
            self._files[record.name].unsynced.append(record)

    def everything(self) -> dict[str, bytes]:
        """Return the files after a kill: all that was written is there."""
        return {name: bytes(file.now()) for name, file in self._files.items()}

    def synced(self) -> dict[str, bytes]:
        """Return the files of a disk that wrote nothing but what was synced, names included."""
        return {name: bytes(file.durable) for name, file in self._durable_names.items()}

    def some(self, random: Random) -> dict[str, bytes]:
        """Return the files of a disk that wrote any part of what was not synced, too."""
        names = random.choice((self._files, self._durable_names))
        return {name: bytes(file.some(random)) for name, file in names.items()}
