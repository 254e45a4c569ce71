"""One worker process: start it, speak frames with it, see it end."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from rkllm_mqtt.core.errors import ModelUnavailable, SlotLost
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.runtime.frames import Frame, FrameError, FrameReader, encode_frame
from rkllm_mqtt.runtime.order import LoadOrder
from rkllm_mqtt.runtime.output import LibraryOutput

log = get_logger(__name__)
_library_log = get_logger("rkllm_mqtt.library")

_LAST_FRAMES_S = 1.0
_OUTPUT_BYTES = _FRAMES_BYTES = 65_536
# A library that prints without end must not keep the event loop for itself.
_MOST_READS = 16
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


_NOT_FOR_WORKERS = ("RKLLM_MQTT_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
"""Beginnings of environment variables: passwords and their places, and what speaks for the daemon."""


class WorkerProcess(asyncio.BufferedProtocol):
    """A child process that holds one model."""

    def __init__(
        self, on_frame: Callable[[Frame], None], library_log_level: int, kill_wait_s: float = 10.0
    ) -> None:
        """Keep the arguments.

        Args:
            on_frame: Takes the frames of runs.
            library_log_level: RKLLM_LOG_LEVEL of the process.
            kill_wait_s: Longest wait for the end of a killed process. What still is there after it hangs
                inside the NPU driver, and is reported, not waited for.
        """
        self._on_frame = on_frame
        self._kill_wait_s = kill_wait_s
        self._library_log_level = library_log_level
        self._frames = FrameReader()
        self._room = memoryview(bytearray(_FRAMES_BYTES))
        """For what comes; asyncio's own would be taken from the system, and given back, with each token."""
        self._transport: asyncio.WriteTransport | None = None
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._output_fd: int | None = None
        self._killed: str | None = None
        self._stopping = False
        self._failure: Frame | None = None
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[Frame] = loop.create_future()
        """Which library it has opened."""
        self.ready: asyncio.Future[Frame] = loop.create_future()
        """The model is loaded; raises ModelUnavailable."""
        self.gone: asyncio.Future[SlotLost] = loop.create_future()
        """The connection has ended; the process may take a moment longer."""
        self.output = LibraryOutput(_log_library)

    @property
    def pid(self) -> int | None:
        """Return the process id; None before the start."""
        return self._process.pid if self._process else None

    async def start(self, order: LoadOrder) -> None:
        """Spawn the process and let it load; `ready` tells how that went.

        Raises:
            OSError: The system has no process or descriptor left for us.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as until_spawned, contextlib.ExitStack() as on_error:
            ours, theirs = socket.socketpair()
            on_error.enter_context(ours)
            until_spawned.enter_context(theirs)
            self._output_fd, printed = os.pipe()
            on_error.callback(self.close_output)
            until_spawned.callback(os.close, printed)
            os.set_blocking(self._output_fd, False)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "rkllm_mqtt.runtime.worker", str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=(theirs.fileno(),),
                env=_environment(self._library_log_level),
                start_new_session=True,  # Ctrl-C in the daemon's terminal is for the daemon alone
            )  # fmt: skip
            self._socket = ours
            await loop.create_connection(lambda: self, sock=ours)
            loop.add_reader(self._output_fd, self._read_output)
            on_error.pop_all()
        self.command(order.frame())

    def memory_mb(self) -> float | None:
        """Return what the process has taken for itself, MB of 2**20 bytes; None when that cannot be read.

        Pages of files do not count: a model's embeddings are read page by page, and can be given back.
        """
        try:
            resident, shared = Path(f"/proc/{self.pid}/statm").read_text().split()[1:3]
        except (OSError, ValueError):
            return None
        return (int(resident) - int(shared)) * _PAGE_BYTES / 1_048_576

    def close_output(self) -> None:
        """Read the last words of a process that has ended, and listen no more."""
        self._read_output()
        if self._output_fd is not None:
            asyncio.get_running_loop().remove_reader(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = None

    def command(self, frame: Frame) -> None:
        """Send a frame; nothing happens when the process is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(frame))

    def pause_reading(self) -> None:
        """Take no more frames: the worker then waits, and the library with it."""
        if isinstance(self._transport, asyncio.Transport) and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take frames again."""
        if isinstance(self._transport, asyncio.Transport) and not self._transport.is_closing():
            self._transport.resume_reading()

    def kill(self, reason: str) -> None:
        """End the process at once; `gone` follows."""
        if self._process is None or self.gone.done():
            return
        self._killed = reason
        log.warning("worker_killed", pid=self._process.pid, reason=reason)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._lose()

    async def exited(self) -> bool:
        """Wait until the process has ended; False when it cannot be killed."""
        if self._process is None:
            return True
        try:
            await asyncio.wait_for(self._process.wait(), self._kill_wait_s)
        except TimeoutError:
            return False
        return True

    async def stop(self, timeout_s: float) -> None:
        """End the process in order: destroy the model, then exit; kill it when that takes too long.

        One that was killed before is not waited for.
        """
        if self._process is None or self._killed is not None:
            return
        self._stopping = True
        self.command({"op": "stop"})
        try:
            await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            self.kill("did not stop in time")
            await self.exited()
        # Its last frames may still be on their way to us.
        await asyncio.wait({self.gone}, timeout=_LAST_FRAMES_S)
        self._lose()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where the next bytes are to be written."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that were written there."""
        self.data_received(bytes(self._room[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Dispatch the frames in `data`."""
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except (FrameError, KeyError, TypeError, ValueError, asyncio.InvalidStateError) as exc:
            # Not the text of any other error: it quotes what came, which may be an answer.
            self.kill(
                f"sent a frame that cannot be read: {exc if type(exc) is FrameError else type(exc).__name__}"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """The process closed its end, which it does only by ending."""
        if exc is not None and not self.gone.done():
            self._hear_out()
        self._lose()

    def _hear_out(self) -> None:
        """Take the frames that are left when a command found the process gone, before they were read.

        Without them a run that has killed the library would not have begun, and its loss would not count.
        """
        with contextlib.suppress(OSError):
            while self._socket is not None and (data := self._socket.recv(_FRAMES_BYTES)):
                self.data_received(data)

    def _read_output(self) -> None:
        for _ in range(_MOST_READS):
            if self._output_fd is None:
                return
            try:
                data = os.read(self._output_fd, _OUTPUT_BYTES)
            except BlockingIOError:
                return
            if not data:
                asyncio.get_running_loop().remove_reader(self._output_fd)
                return
            self.output.feed(data)

    def _take(self, frame: Frame) -> None:
        match frame["t"]:
            case "hello":
                self.hello.set_result(frame)
            case "ready":
                self._read_output()  # what it printed while it loaded is there before the frame is
                self.ready.set_result(frame)
            case "failed":
                self._failure = frame
            case _:
                self._on_frame(frame)

    def _lose(self) -> None:
        if self.gone.done():
            return
        if self._transport is not None:
            self._transport.close()
        self._read_output()
        reason = self._killed or ("the model is loaded anew" if self._stopping else "the model process ended")
        self.gone.set_result(SlotLost(reason, deliberate=self._stopping))
        if not self.ready.done():
            self.ready.set_exception(self._load_error(reason))
            self.ready.exception()  # whoever waits gets it; nobody may be waiting
        if not self.hello.done():
            self.hello.cancel()

    def _load_error(self, reason: str) -> ModelUnavailable:
        line, hint = self.output.why()
        if self._failure is not None:
            reason, hint = str(self._failure["message"]), hint or str(self._failure["hint"])
        return ModelUnavailable(f"{reason}: {line}" if line else reason, hint)

    @property
    def exit_status(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None


def _environment(library_log_level: int) -> dict[str, str]:
    """Return the environment of a worker: ours, without what is the broker's or systemd's business."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_WORKERS)}
    return {**kept, "RKLLM_LOG_LEVEL": str(library_log_level)}


def _log_library(level: str, line: str) -> None:
    if level == "info":
        _library_log.debug("library_says", line=line)
    elif level == "warning":
        _library_log.warning("library_warns", line=line)
    else:
        _library_log.error("library_fails", line=line)
