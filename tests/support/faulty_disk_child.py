"""The process of `faulty_disk.FaultyDisk`: forks for each line of its input, and runs the target there."""

import ctypes
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

SHIM = ctypes.CDLL(None)
SHIM.disk_calls.restype = ctypes.c_long


def case(words: list[str], target: Callable[..., None]) -> None:
    folder, notes, kinds, first, last, error, is_short, trace = words
    said = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    traced = -1 if trace == "-" else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def note(word: str) -> None:
        SHIM.disk_note(word.encode())
        os.write(said, f"{word}\n".encode())

    SHIM.disk_arm(
        folder.encode(),
        int(kinds),
        ctypes.c_long(int(first)),
        ctypes.c_long(int(last)),
        int(error),
        int(is_short),
        traced,
    )
    target(Path(folder), note)


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    target = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        counted, counting = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                case(line.rstrip("\n").split("\t"), target)
                status = 0
            except Exception:  # noqa: BLE001 - `os._exit` would swallow it
                traceback.print_exc()
            finally:
                os.write(counting, b"%d" % SHIM.disk_calls())
                os._exit(status)
        os.close(counting)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        calls = os.read(counted, 32).decode() or "0"
        os.close(counted)
        print(status, calls, flush=True)


main()
