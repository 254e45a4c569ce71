"""What is known of the library and the model in the slot."""

from pathlib import Path

from msgspec import Struct, field

from rkllm_mqtt.runtime.process import WorkerProcess

Stamp = tuple[tuple[int, int, int], ...]
"""Time of change, size and number of some files."""


class SlotFacts(Struct):
    """Kept when the worker is gone."""

    version: str | None = None
    abi: str | None = None
    simulated: bool = False
    capabilities: dict[str, bool] = field(default_factory=dict)
    output: dict[str, str] = field(default_factory=dict)
    """What the library printed: driver, platform, toolkit, context_limit, ..."""
    warnings: tuple[str, ...] = ()

    def learn(self, worker: WorkerProcess) -> None:
        """Take what a worker has told by now, and what its library will print."""
        if worker.hello.done() and not worker.hello.cancelled():
            hello = worker.hello.result()
            self.version, self.abi = hello["version"], hello["abi"]
            self.simulated = hello["simulated"]
            self.capabilities = dict(hello["capabilities"])
            self.warnings = tuple(hello["warnings"])
        self.output = worker.output.facts  # and what is printed later


class Sources:
    """The files from which a worker is loaded, and what becomes of them."""

    def __init__(self) -> None:
        self.loaded: Stamp = ()
        """As they were at the load."""
        self._before: Stamp = ()

    def note(self, *paths: Path | None) -> None:
        """A worker is being loaded from these files."""
        self.loaded = self._before = stamp_of(*paths)

    def changed(self, *paths: Path | None) -> bool:
        """Return whether they differ from what was loaded."""
        return stamp_of(*paths) != self.loaded

    def replaced(self, *paths: Path | None) -> bool:
        """Return, once, whether others lie there, whole: the same in two looks."""
        before, self._before = self._before, stamp_of(*paths)
        is_other = self._before == before != self.loaded and all(size for _, size, _ in before)
        if is_other:
            self.loaded = before
        return is_other


def stamp_of(*paths: Path | None) -> Stamp:
    """Return what changes when somebody repairs one of these files; None is no file."""
    stamps = []
    for path in paths:
        if path is None:
            continue
        try:
            status = path.stat()
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)
