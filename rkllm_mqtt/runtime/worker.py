"""The worker process: owns the native library and one model handle, speaks frames with the daemon.

Started as `python -P -m rkllm_mqtt.runtime.worker <fd>`; the only importer of `rkllmrt` in the daemon's path.

Rule 1: the main thread makes every native call except `abort`, which the reader thread may make.
Rule 2: the end of the socketpair means the daemon is gone: abort, destroy, exit, in bounded time.
Rule 3: standard output and error belong to the library; what we have to say is a frame.
"""

import contextlib
import gc
import os
import resource
import socket
import sys
import threading
from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

import rkllmrt
from rkllm_mqtt.runtime.batch import BatchGeneration
from rkllm_mqtt.runtime.frames import Frame, FrameError, FrameReader, encode_frame
from rkllm_mqtt.runtime.generation import Generation
from rkllm_mqtt.runtime.probe import Probe
from rkllm_mqtt.runtime.readout import Readout, Spelling

EXIT_LOAD_FAILED = 3
EXIT_HANDLE_STUCK = 4
EXIT_ORPHANED = 5
_OPEN_FILES = 102_400  # the runtime keeps many descriptors; Rockchip's own demos ask for this number
_NOT_IN_GROUP_A = frozenset({"enabled_cpus_num", "enabled_cpus_mask", "embed_flash"})
_RECEIVE_BYTES = 262_144


class Worker:
    """One model, served until the daemon says stop or goes away."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = FrameReader()
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._current: Generation | BatchGeneration | Readout | Probe | None = None
        self._model: rkllmrt.Model | None = None
        self._window = 0
        self._spellings: dict[str, Spelling] = {}
        self._orphan_grace_s = 0.0
        self._send_lock = threading.Lock()

    def serve(self) -> int:
        """Load, then run order after order; return the exit status."""
        order, *early = self._first_frames()
        if order is None:
            return EXIT_ORPHANED
        self._orphan_grace_s = order["orphan_grace_s"]
        # Before the load, which may take minutes or hang: also then we must notice that the daemon is gone.
        threading.Thread(target=self._read_commands, args=(early,), name="commands", daemon=True).start()
        try:
            self._model = self._load(order)
        except Exception as exc:  # noqa: BLE001 - whatever failed, the daemon must be told why before we end
            rkllmrt.fflush_c()  # its last lines are the reason
            self.send(
                {"t": "failed", "message": str(exc) or type(exc).__name__, "hint": getattr(exc, "hint", "")}
            )
            return EXIT_LOAD_FAILED
        # The imports and the model's tables live as long as the process: no collection needs to look at them.
        gc.freeze()
        status = 0
        while (run := self._next_run()) is not None:
            if not self._run(run):
                status = EXIT_HANDLE_STUCK
                break
        self._model.close()
        rkllmrt.fflush_c()
        return status

    def send(self, frame: Frame) -> None:
        """Write one frame; a full socket blocks, which is the back-pressure on the library."""
        with self._send_lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(encode_frame(frame))

    def _first_frames(self) -> list[Any]:
        """Return the `load` frame, or None when the daemon is gone, and what came right behind it."""
        while data := self._sock.recv(_RECEIVE_BYTES):
            frames = self._frames.feed(data)
            if frames:
                return frames
        return [None]

    def _load(self, order: Frame) -> rkllmrt.Model:
        _raise_open_files()
        path, simulated = _library(order)
        library = rkllmrt.open_library(path, version=order["version"])
        self.send(
            {
                "t": "hello",
                "version": library.version,
                "abi": library.group,
                "simulated": simulated,
                "warnings": list(library.warnings),
                # Without numpy neither hidden states nor logits can be read.
                "capabilities": {**asdict(library.capabilities), "arrays": find_spec("numpy") is not None},
            }
        )
        file = order["file"] or str(_demo_model())
        params = dict(order["params"])
        if not library.capabilities.cpu_selection:
            for name in _NOT_IN_GROUP_A & params.keys():
                del params[name]
        if params.get("n_batch", 1) > 1 and not library.capabilities.n_batch:
            raise rkllmrt.Unsupported(
                f"runtime {library.version or 'of group ' + library.group} cannot take n_batch above 1",
                "Set `n_batch: 1` for this model, or install runtime 1.2.1 or newer.",
                capability="n_batch",
            )
        self._window = params["max_context_len"]
        model = rkllmrt.Model(library, rkllmrt.ModelParams(model_path=file, **params))
        model.load()
        if order["raw"]:
            model.raw_chat_template()
        rkllmrt.fflush_c()
        self.send({"t": "ready", "file": file})
        return model

    def _read_commands(self, frames: Sequence[Frame]) -> None:
        """Take frames until the daemon goes away, or speaks nonsense; runs in the reader thread."""
        try:
            for frame in frames:
                self._obey(frame)
            while data := self._sock.recv(_RECEIVE_BYTES):
                for frame in self._frames.feed(data):
                    self._obey(frame)
        except (OSError, FrameError, KeyError, TypeError):
            pass
        self._shut()
        # A library that hangs would keep an orphan and its NPU memory alive for ever.
        threading.Timer(self._orphan_grace_s, os._exit, (EXIT_ORPHANED,)).start()

    def _obey(self, frame: Frame) -> None:
        match frame["op"]:
            case "run" | "batch" | "probe":
                with self._changed:
                    self._waiting.append(frame)
                    self._changed.notify()
            case "revoke" | "abort" | "give_way":
                self._end_run(frame["gen"], frame["op"])
            case "stop":
                self._shut()
            case unknown:
                raise FrameError(f"there is no command {unknown!r}")

    def _end_run(self, generation: int, wish: str) -> None:
        with self._changed:
            staged = next((run for run in self._waiting if generation in _numbers(run)), None)
            if staged is not None:
                self._withdraw(staged, generation)
            current = self._current
        if staged is not None:
            self.send({"t": "done", "gen": generation, "reason": "revoked"})
        elif current is not None:
            current.end(generation, wish)

    def _withdraw(self, staged: Frame, generation: int) -> None:
        """Take a run that has not begun out of what waits; the other columns of its batch stay."""
        place = self._waiting.index(staged)
        left = [column for column in staged.get("columns", ()) if column["gen"] != generation]
        if left:
            self._waiting[place] = {**staged, "columns": left}
        else:
            del self._waiting[place]

    def _shut(self) -> None:
        with self._changed:
            self._closing = True
            current = self._current
            self._changed.notify()
        if current is not None:
            current.abort()

    def _next_run(self) -> Frame | None:
        if not self._waiting:
            rkllmrt.fflush_c()  # what the library has printed can wait while there is work
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if self._closing or self._model is None:
                return None
            run = self._waiting.popleft()
            if run["op"] == "batch":
                self._current = BatchGeneration(self._model, self._window, run["columns"], self.send)
            elif run["op"] == "probe":
                self._current = Probe(self._model, run, self.send)
            elif run["readout"] is not None:
                self._current = Readout(self._model, self._window, run, self.send, self._spellings)
            else:
                self._current = Generation(self._model, self._window, run, self.send)
            return run

    def _run(self, run: Frame) -> bool:
        """Run one order; return whether the handle can be used for another."""
        current = self._current
        if current is None:
            return True
        if isinstance(current, BatchGeneration):
            usable = current.run()
            with self._changed:
                self._current = None
            return usable
        self.send({"t": "started", "gen": run["gen"]})
        end = current.run()
        with self._changed:
            self._current = None
        self.send(end)
        return not end.get("stuck", False)


def _numbers(run: Frame) -> list[int]:
    """Return the generation numbers of a `run` or `batch` frame."""
    return [column["gen"] for column in run["columns"]] if run["op"] == "batch" else [run["gen"]]


def _library(order: Frame) -> tuple[Path, bool]:
    # The simulator's sources and compiler search are imported only when it is used.
    from rkllmrt import simulator

    if order["library"] is None:
        return simulator.build(order["simulator_version"]), True
    path = Path(order["library"])
    return path, path.is_file() and simulator.is_simulator(path)


def _demo_model() -> Path:
    from rkllmrt import simulator

    return simulator.demo_model()


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _be_the_first_victim() -> None:
    """Let a kernel without memory end us, who can be replaced, before the daemon or the broker.

    The model lies in the NPU's memory, which is not counted as ours: by itself it would choose another.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main() -> int:
    """Serve the daemon at the other end of the descriptor named on the command line."""
    rkllmrt.line_buffer_c_stdout()
    _be_the_first_victim()
    return Worker(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    # Straight out: the interpreter's own clean-up could run destructors of a library that is gone.
    status = main()
    sys.stdout.flush()
    os._exit(status)
