"""Processes that were killed and do not end: they hang inside the NPU driver until the board restarts."""

from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.runtime.process import WorkerProcess

log = get_logger(__name__)

_MOST = 2
"""Beyond so many no further process is sent into the same trap."""


class Wedged:
    """The processes of one slot that hang."""

    def __init__(self) -> None:
        self._workers: list[WorkerProcess] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Return those that still hang."""
        self._workers = [worker for worker in self._workers if worker.exit_status is None]
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    @property
    def too_many(self) -> bool:
        """Return whether no further process is to be started."""
        return len(self.pids) >= _MOST

    def add(self, worker: WorkerProcess) -> None:
        """Note a process that was killed and has not ended."""
        self._workers.append(worker)
        log.error("npu_wedged", pid=worker.pid, processes=len(self.pids))

    def reason(self, *, serious: bool) -> Reason | None:
        """Return that the NPU is wedged; None when every process that was killed has ended."""
        if not self.pids:
            return None
        pids = ", ".join(map(str, self.pids))
        return Reason(
            "npu_wedged",
            f"the model process {pids} cannot be ended: it hangs inside the NPU driver",
            "Restart the board; nothing else frees the NPU.",
            serious=serious,
        )
