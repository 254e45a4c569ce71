"""The worker process: owns the native library and one model handle, speaks frames with the daemon.

Started as `python -P -m rkllm_mqtt.runtime.worker <fd>`; the only importer of `rkllmrt` in the daemon's path.

Rule 1: one thread at a time is inside the library; only `abort` may be called by another.
Rule 2: two threads take turns. One reads; with a run that may begin at once it enters the library itself, and
the other reads meanwhile: an order that waited for a thread to wake up would lose a third of a millisecond.
What is read during a run is staged, and the thread that is inside goes on with it.
Rule 3: the main thread loads the model, and destroys it when nobody is inside any more.
Rule 4: the end of the socketpair means the daemon is gone: abort, destroy, exit, in bounded time.
Rule 5: standard output and error belong to the library; what we have to say is a frame.
"""

import contextlib
import gc
import os
import resource
import socket
import sys
import threading
from collections import deque
from importlib.util import find_spec
from pathlib import Path

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
_RECEIVE_BYTES = 65_536
"""Room for nearly every order; 128 KB and more would come from the system, and go back, with each of them."""


class Worker:
    """One model, served until the daemon says stop or goes away."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = FrameReader()
        self._early: list[Frame] = []
        """What came in one piece with the load order."""
        self._reading = threading.Lock()
        """Held by the thread that reads, and obeys what it has read."""
        self._turns = threading.Lock()
        """Guards who is inside, with which run, and what waits."""
        self._inside = True  # the load is the first turn
        self._waiting: deque[Frame] = deque()
        self._current: Generation | BatchGeneration | Readout | Probe | None = None
        self._closing = False
        self._orphaned = False
        """There is nobody to hear."""
        self._left = threading.Event()
        """Nobody is inside, nor ever will be."""
        self._status = 0
        self._model: rkllmrt.Model | None = None
        self._window = 0
        self._spellings: dict[str, Spelling] = {}
        self._orphan_grace_s = 0.0
        self._send_lock = threading.Lock()

    def serve(self) -> int:
        """Load, then run order after order; return the exit status."""
        try:
            order, *self._early = self._first_frames()
        except EOFError:
            return EXIT_ORPHANED
        self._orphan_grace_s = order["orphan_grace_s"]
        # Before the load, which may take minutes or hang: also then we must notice that the daemon is gone.
        for number in (1, 2):
            threading.Thread(target=self._take_turns, name=f"turns-{number}", daemon=True).start()
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
        self._run_staged()
        self._left.wait()
        self._model.close()
        rkllmrt.fflush_c()
        return self._status

    def send(self, frame: Frame) -> None:
        """Write one frame; a full socket blocks, which is the back-pressure on the library."""
        line = encode_frame(frame)
        with self._send_lock:
            try:  # noqa: SIM105 - it costs nothing where nothing is raised, and there is one for each token
                self._sock.sendall(line)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the thread that reads will notice that the daemon is gone

    def _first_frames(self) -> list[Frame]:
        """Return the `load` frame and what came right behind it."""
        frames: list[Frame] = []
        while not frames:
            frames = self._receive()
        return frames

    def _receive(self) -> list[Frame]:
        data = self._sock.recv(_RECEIVE_BYTES)
        if not data:
            raise EOFError
        return self._frames.feed(data)

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

    # the turns

    def _take_turns(self) -> None:
        """Read until a run begins, let the other thread read, and run; again and again."""
        while True:
            with self._reading:
                while not self._begin(inside=False):
                    if self._orphaned:
                        return
                    self._hear()
            self._run()
            self._run_staged()

    def _run_staged(self) -> None:
        """Run what was staged meanwhile, by the thread that is inside; then nobody is."""
        while True:
            if not self._waiting:
                rkllmrt.fflush_c()  # what the library has printed can wait while there is work
            if not self._begin(inside=True):
                return
            self._run()

    def _begin(self, *, inside: bool) -> bool:
        """Take the next run as ours; False where there is none, or another thread is inside.

        Args:
            inside: We are; and are no more when this returns False.
        """
        with self._turns:
            if self._inside is not inside:
                return False
            self._inside = bool(self._waiting) and not self._closing
            if not self._inside:
                if self._closing:
                    self._left.set()
                return False
            run = self._waiting.popleft()
            self._current = current = self._made(run)
        if not isinstance(current, BatchGeneration):  # which tells it of each column
            self.send({"t": "started", "gen": current.number})
        return True

    def _made(self, run: Frame) -> Generation | BatchGeneration | Readout | Probe:
        assert self._model is not None  # nobody begins a run before the load has left
        if run["op"] == "batch":
            return BatchGeneration(self._model, self._window, run["columns"], self.send)
        if run["op"] == "probe":
            return Probe(self._model, run, self.send)
        if run["readout"] is not None:
            return Readout(self._model, self._window, run, self.send, self._spellings)
        return Generation(self._model, self._window, run, self.send)

    def _run(self) -> None:
        """Run what has begun."""
        current = self._current
        assert current is not None
        if isinstance(current, BatchGeneration):
            usable = current.run()
            self._current = None
        else:
            end = current.run()
            self._current = None
            self.send(end)
            usable = not end.get("stuck", False)
        if not usable:
            self._status = EXIT_HANDLE_STUCK
            self._closing = True

    # the commands

    def _hear(self) -> None:
        """Obey what the daemon says next; its end, or nonsense, is ours."""
        try:
            frames, self._early = self._early or self._receive(), []
            for frame in frames:
                self._obey(frame)
        except (EOFError, OSError, FrameError, KeyError, TypeError):
            self._orphaned = True
            self._shut()
            # A library that hangs would keep an orphan and its NPU memory alive for ever.
            threading.Timer(self._orphan_grace_s, os._exit, (EXIT_ORPHANED,)).start()

    def _obey(self, frame: Frame) -> None:
        match frame["op"]:
            case "run" | "batch" | "probe":
                self._waiting.append(frame)
            case "revoke" | "abort" | "give_way":
                self._end_run(frame["gen"], frame["op"])
            case "stop":
                self._shut()
            case unknown:
                raise FrameError(f"there is no command {unknown!r}")

    def _end_run(self, generation: int, wish: str) -> None:
        with self._turns:
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
        with self._turns:
            self._closing = True
            current = self._current
            if not self._inside:
                self._left.set()
        if current is not None:
            current.abort()


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


_print_error = threading.excepthook


def _end(error: threading.ExceptHookArgs) -> None:
    """Let an error of ours in any thread end the process, as one in the main thread does."""
    _print_error(error)
    os._exit(1)


def main() -> int:
    """Serve the daemon at the other end of the descriptor named on the command line."""
    threading.excepthook = _end
    rkllmrt.line_buffer_c_stdout()
    _be_the_first_victim()
    return Worker(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    # Straight out: the interpreter's own clean-up could run destructors of a library that is gone.
    status = main()
    sys.stdout.flush()
    os._exit(status)
