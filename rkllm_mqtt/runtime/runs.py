"""The runs in the worker: the ones that are computed, and the ones staged behind them.

Rule: the clock of a run's beginning goes only when nothing is before it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.runtime.order import RunOrder
from rkllm_mqtt.runtime.process import WorkerProcess
from rkllm_mqtt.runtime.run import Run, Watch

OnPieces = Callable[[Sequence[Any], int], None]
"""Takes the pieces of text of each frame and the tokens made so far."""


class Runs:
    """Runs by generation, in the order in which the worker computes them."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    @property
    def last(self) -> int:
        """Return the generation of the newest run."""
        return self._generation

    @property
    def turns(self) -> int:
        """Return how many times the library is to be entered for them; a batch counts as one."""
        return len({run.batch or run.generation for run in self}) if self._runs else 0

    def find(self, generation: int) -> Run | None:
        """Return a run that has not ended."""
        return self._runs.get(generation)

    def hand_over(
        self, worker: WorkerProcess, watch: Watch, asked: Sequence[tuple[RunOrder, OnPieces]], *, batch: bool
    ) -> list[Run]:
        """Give runs to a worker: a batch, or just one."""
        runs: list[Run] = []
        for order, on_pieces in asked:
            self._generation += 1
            run = Run(self._generation, order, watch, on_pieces, worker.command, worker.kill)
            run.batch = self._generation - len(runs) if batch else None
            self._runs[run.generation] = run
            runs.append(run)
        frames = [run.order.frame(run.generation) for run in runs]
        worker.command({"op": "batch", "columns": frames} if batch else frames[0])
        self.expect_start()
        return runs

    def remove(self, run: Run) -> None:
        """Let a run go that has ended."""
        del self._runs[run.generation]
        self.expect_start()

    def expect_start(self) -> None:
        """Let the first runs' clocks begin; the staged ones wait for as long as those may take."""
        first = next(iter(self), None)
        if first is None:
            return
        for run in self:
            if run is first or (run.in_batch and run.batch == first.batch):
                run.expect_start()

    def lose(self, lost: SlotLost) -> bool:
        """End all runs: the worker is gone; return whether a batch was lost that it computed."""
        runs, self._runs = list(self), {}
        for run in runs:
            run.lost(lost)
        return any(run.in_batch and run.started_at is not None for run in runs)
