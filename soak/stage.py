"""The soak itself: a broker, the daemon, the senders, and what troubles them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.broker import Broker
from bench.child import Child, children
from bench.wire import Message, Wire
from soak.readings import Reading, read
from soak.sender import NODE, Sender, Tally

_KEEPS = "persistence true\nmax_queued_messages 100000\n"
_READ_S = 5.0
_KILL_S = 150.0
"""Between two kills of the worker, at the board's pace; so are all times below."""
_REPLACE_S = 430.0
_BROKER_S = 190.0
_RETENTION_S = 420.0
_UPKEEP_S = 60.0
"""The daemon forgets what is beyond its retention so often; its own time, not scaled."""
_TOLD_S, _TELLINGS = 8.0, 5
"""`stats` comes so soon after a job, unless it has just come; then another job brings it."""
_QUIET_S = 0.5
"""After the last answer: what follows it, such as the broker's acknowledgement, is over by then."""
_PATIENCE_S = 60.0


class Soak:
    """One run; `run` it, then look at what it has seen."""

    def __init__(self, folder: Path, library: Path, seconds: float, speed: float, senders: int) -> None:
        """Keep the arguments; `seconds` are real ones, `speed` divides every time of the simulated board."""
        self._folder = folder
        self._library = library
        self._seconds = seconds
        self._speed = speed
        self._count = senders
        self._broker = Broker(folder, _KEEPS)
        self._journal = folder / "journal.db"
        self._daemon: Child | None = None
        self._loaded = asyncio.Event()
        self._told = asyncio.Event()
        self._tasks: int | None = None
        self._restarting: asyncio.Future[None] | None = None
        self._closing = asyncio.Event()
        self._watcher: Wire | None = None
        self.tally = Tally()
        self.readings: list[Reading] = []
        self.before: Reading
        self.after: Reading
        self.worker_kills = self.worker_restarts = self.broker_restarts = 0

    async def run(self) -> None:
        """Soak.

        Raises:
            ConnectionError: Something did not start or did not come back; the message has its last words.
        """
        await self._broker.start()
        self._daemon = self._start_daemon()
        try:
            await self._watch()
            await self._until_loaded()
            self.before = await self._idle("before")
            await self._soak()
            self.after = await self._idle("after")
            if self._watcher is not None:
                await self._watcher.close()
        finally:
            self._daemon.stop()
            self._broker.stop()

    async def _soak(self) -> None:
        senders = [Sender(str(n), self._broker.port, self._speed, self.tally) for n in range(self._count)]
        asking = [asyncio.create_task(sender.run(self._closing)) for sender in senders]
        troubles = [
            asyncio.create_task(work)
            for work in (
                self._every(_READ_S / min(self._speed, 10), self._look),
                self._every(self._period(_KILL_S), self._kill_worker),
                self._every(self._period(_REPLACE_S), self._replace_worker),
                self._every(self._period(_BROKER_S), self._restart_broker),
            )
        ]
        await asyncio.wait(troubles, timeout=self._seconds, return_when=asyncio.FIRST_EXCEPTION)
        for trouble in troubles:
            if trouble.done():
                trouble.result()
            trouble.cancel()
        await asyncio.wait(troubles)
        if self._restarting is not None:
            await self._restarting
        await self._broker.start()
        self._closing.set()
        _, late = await asyncio.wait(asking, timeout=_PATIENCE_S + 120 / self._speed)
        for sender in asking:
            if sender in late:
                sender.cancel()
                self.tally.broken.append("a sender got no answer at the end")
            else:
                sender.result()

    def _period(self, seconds: float) -> float:
        """Return the real time between two troubles of a kind; a short soak has three of each, too."""
        return min(seconds / self._speed, self._seconds / 3.5)

    @property
    def shows_retention(self) -> bool:
        """Return whether it is long enough for the journal to have reached its size by the second quarter."""
        return self._seconds / 4 > max(_RETENTION_S / self._speed, _UPKEEP_S) + _UPKEEP_S

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await act()

    def _start_daemon(self) -> Child:
        config = {
            "node": NODE,
            "mqtt": {"port": self._broker.port, "reconnect_max_s": 2},
            "runtime": {"library": str(self._library)},
            "models": [{"id": "soak", "file": str(self._folder / "soak.sim"), "context_tokens": 4096}],
            "limits": {"id_retention_s": max(5.0, _RETENTION_S / self._speed)},
            "journal": {"path": str(self._journal)},
            "log": {"level": "warning"},
            "admin": {"enabled": True},
        }
        (self._folder / "soak.sim").write_text("rkllm-simulator 1\nprofile: origin\n")
        file = self._folder / "soak.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        line = [sys.executable, "-P", "-m", "rkllm_mqtt", "run", "--config", str(file)]
        return Child(line, self._folder / "daemon.log", {"RKLLM_SIM_SPEED": str(self._speed)})

    # what is seen

    def _read(self) -> Reading:
        if self._daemon is None or self._daemon.has_ended:
            raise ConnectionError(f"the daemon is gone: {self._daemon and self._daemon.last_words()}")
        return read(self._daemon.pid, self._journal, self._tasks, asyncio.get_running_loop().time())

    async def _look(self) -> None:
        self.readings.append(self._read())
        if self._watcher is None or self._watcher.lost.done():
            with contextlib.suppress(OSError, ConnectionError):
                await self._watch()

    async def _idle(self, when: str) -> Reading:
        """Return a reading of the daemon after a prompt, with nothing left to do.

        Raises:
            ConnectionError: It does not tell its statistics.
        """
        await self._watch()
        last = Sender(when, self._broker.port, self._speed, self.tally)
        for number in range(_TELLINGS):
            await last.ask(f"q{number}")
            await asyncio.sleep(_QUIET_S)
            self._told.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _TOLD_S)
                await last.close()
                return self._read()
        raise ConnectionError("the daemon tells no statistics")

    async def _watch(self) -> None:
        if self._watcher is None or self._watcher.lost.done():
            self._watcher = await Wire.open(self._broker.port, "soak-watcher", self._take)
            await self._watcher.subscribe([f"rkllm/{NODE}/stats", f"rkllm/{NODE}/info"])

    def _take(self, message: Message) -> None:
        members = json.loads(message.payload)
        if message.topic.endswith("stats"):
            self._tasks = members["tasks"]
            self._told.set()
        elif any(model["loaded"] for model in members["models"]):
            self._loaded.set()

    async def _until_loaded(self) -> None:
        try:
            await asyncio.wait_for(self._loaded.wait(), _PATIENCE_S)
        except TimeoutError as exc:
            raise ConnectionError(
                f"no model was loaded: {self._daemon and self._daemon.last_words()}"
            ) from exc

    # what troubles

    async def _kill_worker(self) -> None:
        if self._daemon is not None:
            for pid in children(self._daemon.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.worker_kills += 1

    async def _replace_worker(self) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            await self._watch()
            if self._watcher is not None:
                self._watcher.publish([(f"rkllm/{NODE}/admin/request/restart_worker", b"{}")])
                self.worker_restarts += 1

    async def _restart_broker(self) -> None:
        self.broker_restarts += 1
        # To its end, also when the troubles end meanwhile: a stop under way would hit the broker of the end.
        self._restarting = asyncio.ensure_future(self._stop_and_start())
        await asyncio.shield(self._restarting)

    async def _stop_and_start(self) -> None:
        await asyncio.to_thread(self._broker.stop)
        await asyncio.sleep(min(2.0, 6 / self._speed))
        await self._broker.start()
