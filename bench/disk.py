"""The disk under the journal: how long its syncs take, and a way to make each take 10 ms longer."""

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

SLOWED_MS = 10
_BLOCK = 4096
_REST_S = 0.03

_SHIM = """\
/* Loaded before the C library: every sync of this process waits a while and then really happens. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void wait_ms(void) {
    static long ms = -1;
    if (ms < 0) {
        const char *text = getenv("BENCH_SYNC_DELAY_MS");
        ms = text ? atol(text) : 0;
    }
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_ms();
    return real(fd);
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_ms();
    return real(fd);
}
"""


def slowed(folder: Path, delay_ms: int = SLOWED_MS) -> Mapping[str, str]:
    """Return the environment of a process whose every fsync and fdatasync takes `delay_ms` longer.

    Raises:
        OSError: There is no C compiler.
        subprocess.CalledProcessError: It refused the source.
    """
    library = folder / "slow_sync.so"
    if not library.exists():
        source = folder / "slow_sync.c"
        source.write_text(_SHIM)
        line = [
            os.environ.get("CC", "cc"),
            "-O1",
            "-shared",
            "-fPIC",
            str(source),
            "-o",
            str(library),
            "-ldl",
        ]
        subprocess.run(line, check=True, capture_output=True)
    return {"LD_PRELOAD": str(library), "BENCH_SYNC_DELAY_MS": str(delay_ms)}


def sync_times_ms(folder: Path, count: int) -> list[float]:
    """Return how long `count` times 4 kB and an fdatasync took, milliseconds each.

    Each after a rest, as the commits of a daemon that answers single questions come: a disk that was busy a
    moment ago is several times faster.
    """
    taken = []
    path = folder / "sync-probe"
    with path.open("wb", buffering=0) as file:
        # As SQLite's log in the steady state: blocks that exist are written again.
        file.write(bytes(_BLOCK * 64))
        os.fsync(file.fileno())
        for number in range(count):
            time.sleep(_REST_S)
            os.pwrite(file.fileno(), os.urandom(_BLOCK), number % 64 * _BLOCK)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return taken
