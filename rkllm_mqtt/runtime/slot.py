"""The slot: keeps a worker with a loaded model running, hands it runs, and survives whatever it does.

Rule 1: at most one run is being computed and one is staged behind it; a staged run can be revoked.
Rule 2: when a worker is gone every run in it ends with SlotLost at once, and a new worker is started.
Rule 3: losing workers again and again, without a finished run in between, slows the restarts down.
Rule 4: a process that hangs inside the NPU driver is reported, not waited for; a third never joins two.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Catalogue, Change
from rkllm_mqtt.core.errors import Fault, ModelUnavailable, SlotLost
from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.core.loads import Loads
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.runtime.facts import SlotFacts, Sources
from rkllm_mqtt.runtime.frames import Frame
from rkllm_mqtt.runtime.growth import Growth
from rkllm_mqtt.runtime.loading import load
from rkllm_mqtt.runtime.order import RunOrder, find_library, load_order
from rkllm_mqtt.runtime.process import WorkerProcess
from rkllm_mqtt.runtime.run import Run, Watch
from rkllm_mqtt.runtime.runs import OnPieces, Runs
from rkllm_mqtt.runtime.setbacks import Setbacks
from rkllm_mqtt.runtime.wedged import Wedged

log = get_logger(__name__)

DEPTH = 2
"""Runs in the worker: the one being computed and the one staged behind it."""
_STOP_S = 10.0
_FILE_POLL_S = 0.5
_WATCH_S = 1.0
"""Between two looks at the files of a loaded model; what is the same in two of them is whole."""
_LATE_S = 10.0
"""A clock of ours that is so late does not work: timers and loop share a thread, so both are in doubt."""


class Slot:
    """The one place where models run."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        on_change: Callable[[], None],
        check: Callable[[str], Fault | None] = lambda _model_id: None,
    ) -> None:
        """Keep the arguments; `check` says before a load why a model cannot be: it may read files."""
        self._config = config
        self.catalogue = catalogue
        self._on_change = on_change
        self._check = check
        self._wanted = catalogue.default
        self._settings = catalogue.settings(self._wanted)
        """Of the wanted model; kept while it is there, whatever becomes of the list."""
        self._worker: WorkerProcess | None = None
        self._runs = Runs()
        self._recycle = asyncio.Event()
        self._growth = Growth(config.runtime.max_worker_growth_mb)
        self._outdated = False
        """The model was loaded with settings, or from a file, that have changed since."""
        self._columns: dict[str, int] = {}
        """By model, where not as many as are configured."""
        self.columns = 1
        """Runs that the loaded model computes together."""
        self.on_batch_lost: Callable[[str, str], None] = lambda _model_id, _reason: None
        """Called with the model and the reason when a batch is lost, before the next worker is loaded."""
        self.on_unloadable: Callable[[str, int, str], bool] = lambda _model_id, _columns, _reason: False
        """Called with model, columns and reason of a failed load; True: the next one may do better."""
        self.wedged = Wedged()
        self._closing = False
        self._sources = Sources()
        self.facts = SlotFacts(simulated=find_library(config, catalogue.models) is None)
        self.loads = Loads()
        """How long the models take to load."""
        self.unloaded = False
        """No worker is started before a model is used."""
        self.loaded: str | None = None
        """The model that is ready to run; None while loading or after a failure."""
        self.loading_since: float | None = None
        """Seconds of the event loop's clock."""
        self.ready_since: float | None = None
        self.restarts = 0
        self.setbacks = Setbacks()
        self.recycles = 0
        """Workers replaced between two jobs because they had grown too large."""
        self.problem: Reason | None = None
        """Why no model is loaded."""

    @property
    def wanted(self) -> str:
        """Return the model that is loaded or being loaded."""
        return self._wanted

    @property
    def loaded_from(self) -> list[Any]:
        """Return what tells the loaded model file and runtime from any other, as JSON has it."""
        return [*map(list, self._sources.loaded), self.facts.version]

    @property
    def last_run(self) -> int:
        """Return the number of the newest run that was handed over; they count from 1."""
        return self._runs.last

    @property
    def pid(self) -> int | None:
        """Return the worker's process id."""
        return self._worker.pid if self._worker and not self._worker.gone.done() else None

    @property
    def room(self) -> int:
        """Return how many more runs the slot takes now."""
        if self.loaded is None or self._is_stale:
            return 0
        return DEPTH - self._runs.turns

    @property
    def _is_stale(self) -> bool:
        """Return whether the worker is to be replaced when it is idle."""
        return self._growth.too_large or self._outdated or self.columns != self._columns_of(self._wanted)

    def _columns_of(self, model_id: str) -> int:
        settings = self.catalogue.settings(model_id)
        return self._columns.get(model_id, settings.n_batch if settings else 1)

    def overdue(self, now: float) -> str | None:
        """Return what should have ended by its own clock and has not; None when all is in time.

        Args:
            now: Seconds of the event loop's clock.
        """
        if any(run.overdue_s(now) > _LATE_S for run in self._runs):
            return "a run is beyond all of its clocks"
        longest_s = self._config.runtime.load_timeout_s + _LATE_S
        if self.loading_since is not None and now - self.loading_since > longest_s:
            return "a load is beyond its time"
        return None

    def apply(self, config: Config) -> None:
        """Take over a changed configuration; a model that it concerns is loaded anew between two jobs."""
        self._outdated |= not self.facts.capabilities.get("per_run_max_new_tokens") and (
            load_order(config, self._settings).params != load_order(self._config, self._settings).params
        )
        self._config = config
        self._growth.limit_mb = config.runtime.max_worker_growth_mb
        self._replace_if_idle()

    def models_changed(self, change: Change) -> None:
        """Hear which models there are now; one that is there with other settings is loaded anew when idle."""
        for model_id in change.removed:
            self._columns.pop(model_id, None)
        if self._wanted not in change.changed:
            return
        if self.loaded is None and self.loading_since is None:
            self.restart()  # it could not be loaded; now it may
            return
        settings = self.catalogue.settings(self._wanted)
        self._outdated |= load_order(self._config, settings) != load_order(self._config, self._settings)
        self._replace_if_idle()

    def use(self, model_id: str) -> None:
        """Load another model; the runs in the slot must have ended."""
        if model_id != self._wanted or self.unloaded:
            self._wanted, self.unloaded = model_id, False
            self.setbacks.load_failures, self.problem = 0, None  # they were the other model's
            self.restart()

    def unload(self) -> None:
        """End the worker, and start none before a model is used; the runs in the slot must have ended."""
        self.unloaded = True
        self.restart()

    def restart(self) -> None:
        """Replace the worker by a new one; what runs in it runs again, through no fault of its own."""
        self.loaded = None
        self._recycle.set()

    def load_with(self, model_id: str, columns: int) -> None:
        """Let a model compute so many runs together; one loaded otherwise is loaded anew when idle."""
        self._columns[model_id] = columns
        self._replace_if_idle()

    def hold(self) -> None:
        """Let the library wait: what it makes cannot be sent as fast."""
        if self._worker is not None:
            self._worker.pause_reading()

    def release(self) -> None:
        """Let the library go on."""
        if self._worker is not None:
            self._worker.resume_reading()

    def submit(self, order: RunOrder, on_pieces: OnPieces) -> Run:
        """Hand a run to the worker.

        Args:
            order: What to run.
            on_pieces: Takes the pieces of text of each frame and the tokens made so far.

        Raises:
            SlotLost: There is no room; ask `room` first.
        """
        return self._hand_over([(order, on_pieces)], batch=False)[0]

    def submit_batch(self, asked: Sequence[tuple[RunOrder, OnPieces]]) -> list[Run]:
        """Hand runs to the worker that are computed together, at most `columns`; they share one sampling.

        Raises:
            SlotLost: There is no room; ask `room` first.
        """
        return self._hand_over(asked, batch=True)

    def _hand_over(self, asked: Sequence[tuple[RunOrder, OnPieces]], *, batch: bool) -> list[Run]:
        if self.room < 1 or self._worker is None:
            raise SlotLost("no model is loaded")
        runtime = self._config.runtime
        watch = Watch(runtime.stall_timeout_s, runtime.run_timeout_s, runtime.abort_grace_s)
        return self._runs.hand_over(self._worker, watch, asked, batch=batch)

    async def run(self) -> None:
        """Keep a worker alive until `close`; cancelled by the daemon's task group."""
        while not self._closing:
            await self._serve_one_worker()
            while self.unloaded:
                self._recycle.clear()
                await self._recycle.wait()
            if not self._closing:
                await self._pause()

    async def close(self) -> None:
        """End the worker in order: destroy the model and let the process exit."""
        self._closing = True
        if self._worker is not None:
            await self._worker.stop(_STOP_S)

    async def _serve_one_worker(self) -> None:
        """Start a worker, wait until it is gone, and clean up after it."""
        loop = asyncio.get_running_loop()
        self._recycle.clear()
        self._growth = Growth(self._config.runtime.max_worker_growth_mb)
        self._outdated = False
        model_id = self._wanted
        if model_id in self.catalogue:
            self._settings = self.catalogue.settings(model_id)
        self.columns = self._columns_of(model_id)
        self._sources.note(*self._files)
        if (fault := await asyncio.to_thread(self._check, model_id)) is not None:
            self._failed(ModelUnavailable(fault.message, fault.hint))
            self._on_change()
            return
        runtime = self._config.runtime
        worker = self._worker = WorkerProcess(self._take, runtime.log_level, 2 * runtime.abort_grace_s)
        self.loading_since = loop.time()
        self._on_change()
        try:
            models = self.catalogue.models
            await worker.start(load_order(self._config, self._settings, self.columns, models))
        except OSError as exc:
            self.loading_since = None
            self._failed(ModelUnavailable(f"no process can be started: {exc}", "Free some memory."))
            self._on_change()
            return
        log.info("worker_started", pid=worker.pid, model=model_id)
        try:
            await self._load(worker, model_id)
            await self._until_replaced(worker)
        except asyncio.CancelledError:
            worker.kill("the daemon ends")
            raise
        finally:
            self._lose_runs(worker.gone.result() if worker.gone.done() else SlotLost("the daemon ends"))
            ended = await worker.exited()
            worker.close_output()
        self._after_exit(worker, ended)

    async def _load(self, worker: WorkerProcess, model_id: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            if not await load(worker, self.facts, self._recycle, self._config.runtime.load_timeout_s):
                return
        except ModelUnavailable as exc:
            self._failed(exc)
        else:
            took = loop.time() - (self.loading_since or loop.time())
            self.loads.learn(model_id, took)
            log.info("model_loaded", model=model_id, seconds=took, runtime=self.facts.version)
            self.setbacks.load_failures, self.problem = 0, None
            if not self._recycle.is_set():
                self.loaded = model_id
                self.ready_since = loop.time()
                self._replace_if_idle()  # what it is loaded with may have changed meanwhile
        finally:
            self.loading_since = None
            self._on_change()

    async def _until_replaced(self, worker: WorkerProcess) -> None:
        recycle = asyncio.create_task(self._recycle.wait(), name="slot-recycle")
        try:
            either: set[asyncio.Future[Any]] = {worker.gone, recycle}
            while not (await asyncio.wait(either, timeout=_WATCH_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                self._look_at_files()
            if not worker.gone.done():
                # Who is loading cannot obey; who has loaded must give the NPU's memory back.
                await worker.stop(_STOP_S if worker.ready.done() else self._config.runtime.abort_grace_s)
        finally:
            recycle.cancel()

    def _look_at_files(self) -> None:
        """Load anew between two jobs when model or library were replaced; a copy may first be finished."""
        if self._sources.replaced(*self._files):
            log.info("model_file_replaced", model=self._wanted)
            self._outdated = True
            self._replace_if_idle()

    def _after_exit(self, worker: WorkerProcess, ended: bool) -> None:
        if not ended:
            self.wedged.add(worker)
        if not self._closing and not self._recycle.is_set():
            self.restarts += 1
            self.setbacks.losses += 1
            losses = self.setbacks.losses
            log.warning("worker_lost", pid=worker.pid, exit=worker.exit_status, losses=losses)
        self._on_change()

    def _failed(self, exc: ModelUnavailable) -> None:
        if self.on_unloadable(self._wanted, self.columns, str(exc)):
            return
        self.setbacks.load_failures += 1
        failures = self.setbacks.load_failures
        hint = exc.hint or "`rkllm-mqtt doctor` looks at the board and the model file."
        self.problem = Reason("model_error", f"the model cannot be loaded: {exc}", hint, serious=True)
        log.error("model_failed", model=self._wanted, failures=failures, reason=str(exc), hint=hint)

    def _take(self, frame: Frame) -> None:
        """Take a frame of a run; late frames of an ended one are dropped."""
        run = self._runs.find(frame["gen"])
        if run is None:
            return
        done = frame["t"] == "done"
        if done and frame["reason"] == "aborted" and self._recycle.is_set() and not run.aborting:
            return  # we replace the worker: the run ends with its process, through no fault of its own
        run.take(frame)
        if done:
            self._runs.remove(run)
            if frame["reason"] != "error":
                self.setbacks.losses = 0
            elif run.in_batch:
                self.on_batch_lost(self._wanted, str(frame["message"]))
            if self._worker is not None:
                self._growth.look(self._worker.memory_mb())
            self._replace_if_idle()

    def _replace_if_idle(self) -> None:
        """Replace a worker that has grown too large, or whose settings have changed, when it is idle."""
        if self.loaded is None or self._runs or not self._is_stale:
            return
        if self._growth.too_large:
            self.recycles += 1
            log.warning("worker_recycled", pid=self.pid, grown_mb=self._growth.mb, model=self.loaded)
        self.restart()

    def _lose_runs(self, lost: SlotLost) -> None:
        self.loaded = self.ready_since = None
        if self._runs.lose(lost) and not lost.deliberate:
            self.on_batch_lost(self._wanted, str(lost))

    async def _pause(self) -> None:
        """Wait before the next worker; a changed model file or a wish for another model ends the wait."""
        while self.wedged.too_many and not self._closing:
            if await self._unwanted_within(_FILE_POLL_S):
                return
        seconds = self.setbacks.pause_s(self._config.runtime.restart_max_s)
        if seconds <= 0 or self._recycle.is_set():
            return
        loop = asyncio.get_running_loop()
        log.info("worker_restart_waits", seconds=seconds)
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and not self._sources.changed(*self._files):
            if await self._unwanted_within(min(left, _FILE_POLL_S)):
                return

    async def _unwanted_within(self, seconds: float) -> bool:
        """Return whether another worker is wanted before so much time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._recycle.wait()
        return False

    @property
    def _files(self) -> tuple[Path | None, Path | None]:
        """Return the model file and the library."""
        file = self._settings.file if self._settings else None
        return file, find_library(self._config, self.catalogue.models)
