"""A process that the bench starts: it never outlives the bench, and its memory and CPU time can be read."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_GRACE_S = 15.0
_LIBC = ctypes.CDLL(None)


class Child:
    """A running process; its output goes to a file."""

    def __init__(self, line: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        """Start it.

        Args:
            line: Program and arguments.
            log: Its standard output and error, appended.
            environ: Added to the bench's own environment.
        """
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(line),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environ},
                start_new_session=True,
                # Safe: the bench has one thread, and a system call is all that happens.
                preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Return whether it is gone."""
        return self._process.poll() is not None

    def last_words(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL after 15 s."""
        if not self.has_ended:
            self._process.terminate()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of a process, megabytes of 2**20 bytes."""

    rss_mb: float
    pss_mb: float | None
    """Pages shared with other processes counted in part; None where the kernel does not tell."""
    anonymous_mb: float


def footprint(pid: int) -> Footprint:
    """Return the memory of a process.

    Raises:
        OSError: It is gone.
    """
    fields = _kilobytes(Path(f"/proc/{pid}/status"))
    pss = None
    with suppress(OSError):
        pss = _kilobytes(Path(f"/proc/{pid}/smaps_rollup")).get("Pss")
    return Footprint(
        fields["VmRSS"] / 1024, None if pss is None else pss / 1024, fields.get("RssAnon", 0) / 1024
    )


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process since its start, all threads that live, seconds.

    Raises:
        OSError: It is gone, or the kernel keeps no schedstat.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def children(pid: int) -> list[int]:
    """Return the processes that a process has started; zombies are not among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found.append(int(entry.name))
    return found


def _kilobytes(path: Path) -> dict[str, int]:
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if line.rstrip().endswith("kB"))
    return {name: int(value.split()[0]) for name, value in pairs}
