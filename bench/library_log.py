"""What the simulated library itself logs of each run: when rkllm_run was entered and when it returned.

This is the denominator of every ratio, and the reference of every added millisecond.
"""

import json
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = "RKLLM_SIM_TRACE"


@dataclass(frozen=True, slots=True)
class LibraryRun:
    """One rkllm_run; nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share."""

    entry_ns: int
    return_ns: int
    tokens: int
    """Tokens given out, the end-of-sequence step included."""
    computed: int = 0
    """Tokens of the prompt that were not reused."""

    @property
    def slot_s(self) -> float:
        """Return the slot time, seconds."""
        return (self.return_ns - self.entry_ns) / 1e9


class LibraryLog:
    """The log of one library process after another, in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0

    @property
    def environ(self) -> dict[str, str]:
        """Return what makes the library write this log."""
        return {ENVIRONMENT: str(self.path)}

    def new_runs(self) -> list[LibraryRun]:
        """Return the runs that have ended since the last call, in order."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        return [
            LibraryRun(run["entry_ns"], run["return_ns"], run["emitted"], run.get("prefill_tokens", 0))
            for run in map(json.loads, new)
        ]
