"""A real worker process, spoken to in frames."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_slot import MODELS, PATIENCE_S, slot_config

from rkllm_mqtt.runtime.frames import FrameReader, encode_frame
from rkllm_mqtt.runtime.order import RunOrder, load_order

REPOSITORY = Path(__file__).parent.parent.parent


class LiveWorker:
    """The daemon's side of one worker process; everything waits, nothing runs beside it."""

    def __init__(self, file: Path = MODELS / "plain.sim", *, version: str = "1.3.1", **settings: Any) -> None:
        config = slot_config(file, simulator_version=version, **settings)
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_S)
        self.socket = ours
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rkllm_mqtt.runtime.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._reader = FrameReader()
        self._came: list[Any] = []
        self._runs = 0
        self.load = load_order(config, config.models[0], config.models[0].n_batch).frame()

    def send(self, *frames: Any) -> None:
        """Send frames in one piece."""
        self.socket.sendall(b"".join(encode_frame(frame) for frame in frames))

    def next(self) -> Any:
        """Return the next frame; None when the worker has closed its end."""
        while not self._came:
            data = self.socket.recv(65_536)
            if not data:
                return None
            self._came.extend(self._reader.feed(data))
        return self._came.pop(0)

    def until(self, kind: str, number: int | None = None) -> list[Any]:
        """Return the frames up to one of a kind, and of a run where its number is given."""
        frames = []
        while True:
            frame = self.next()
            assert frame is not None, f"the worker ended before {kind!r}: {self.output()}"
            frames.append(frame)
            if frame["t"] == kind and number in (None, frame.get("gen")):
                return frames

    def ready(self) -> "LiveWorker":
        """Load the model."""
        self.send(self.load)
        self.until("ready")
        return self

    def order(self, prompt: str, **fields: Any) -> Any:
        """Return the frame of a new run."""
        self._runs += 1
        return RunOrder(**{"prompt": prompt, "max_tokens": 1000} | fields).frame(self._runs)

    def ask_together(self, *prompts: str, **fields: Any) -> list["Told"]:
        """Run a batch to the end; `fields` are the same for all."""
        orders = [self.order(prompt, **fields) for prompt in prompts]
        self.send({"op": "batch", "columns": orders})
        return self.told(*(order["gen"] for order in orders))

    def told(self, *numbers: int) -> list["Told"]:
        """Return what is said of runs, up to the last one's end."""
        frames: dict[int, list[Any]] = {number: [] for number in numbers}
        while not all(said and said[-1]["t"] == "done" for said in frames.values()):
            frame = self.next()
            assert frame is not None, f"the worker ended: {self.output()}"
            frames.get(frame["gen"], []).append(frame)
        return [Told(said) for said in frames.values()]

    def ask(self, prompt: str, **fields: Any) -> "Told":
        """Run to the end."""
        order = self.order(prompt, **fields)
        self.send(order)
        return Told(self.until("done", order["gen"]))

    def exit_status(self) -> int:
        """Wait for the end of the process."""
        return self.process.wait(PATIENCE_S)

    def output(self) -> str:
        """Return what the process has printed; it must have ended or be about to."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode(errors="replace")

    def close(self) -> None:
        """Leave nothing behind."""
        self.socket.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Told:
    """What a worker said of one run."""

    def __init__(self, frames: list[Any]) -> None:
        self.all = frames
        self.done = frames[-1]
        self.frames = [frame for frame in frames if frame["t"] == "tokens"]
        pieces = [piece for frame in self.frames for piece in frame["d"]]
        self.text = "".join(piece for piece in pieces if isinstance(piece, str))
        self.thinking = "".join(piece[0] for piece in pieces if isinstance(piece, list))
        self.calls = [piece for piece in pieces if isinstance(piece, dict)]
        self.reason: str = self.done["reason"]
        self.written: str | None = self.done.get("written")
        self.tokens: int = self.done.get("tokens", 0)


@pytest.fixture
def worker() -> Iterator[Callable[..., LiveWorker]]:
    """Start workers of one's own; they have loaded nothing yet."""
    made: list[LiveWorker] = []

    def make(*arguments: Any, **settings: Any) -> LiveWorker:
        made.append(LiveWorker(*arguments, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def shared_worker() -> Iterator[Callable[..., LiveWorker]]:
    """Return the one loaded worker of a model and a release, for tests that do not harm it."""
    made: dict[Any, LiveWorker] = {}

    def get(name: str = "plain.sim", version: str = "1.3.1", **settings: Any) -> LiveWorker:
        key = (name, version, *settings.items())
        if key not in made:
            made[key] = LiveWorker(MODELS / name, version=version, **settings).ready()
        return made[key]

    yield get
    for one in made.values():
        one.close()


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Write a simulated model."""

    def write(*lines: str, name: str = "model.sim", profile: str = "instant") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(["rkllm-simulator 1", f"profile: {profile}", *lines, ""]))
        return path

    return write
