"""The parts that are broken: a real broker, a real daemon with its worker, the connections between them."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from live_broker import Broker
from live_daemon import Daemon

from chaos.machine import Machine
from chaos.observer import Observer
from chaos.packets import Kind, Packet
from chaos.prompts import write_model
from chaos.proxy import Link, Proxy, Way
from chaos.recording import Fault, Life, Look, Ran, Recording
from chaos.recording import Link as LinkState
from chaos.wire import look, now

KEEPALIVE_S = 7
"""The daemon asks the broker for less; the broker's own clock is coarse (see `mqtt/client.py`)."""
WILL_DELAY_S = 1
ABORT_GRACE_S = 1.5
STALL_S = 1.0
_LOOK_AFTER_S = 2.0
_UP_S = 60.0


class World:
    """Everything that runs; start it, break it, stop it."""

    def __init__(self, folder: Path, seed: int, *, brief: bool = False, slack_s: float = 0.0) -> None:
        """Prepare the files.

        Args:
            folder: Empty.
            seed: Makes the node's name.
            brief: Every fault lasts as shortly as it can.
            slack_s: Added to every bound, seconds.
        """
        self.brief = brief
        self.folder = folder
        self.recording = Recording(
            f"chaos-{seed}-{os.getpid()}",
            keepalive_s=KEEPALIVE_S,
            will_delay_s=WILL_DELAY_S,
            abort_grace_s=ABORT_GRACE_S,
            slack_s=slack_s,
        )
        self.broker = Broker(folder / "broker", persistence=True, saved_every=200, max_queued=0)
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.model = folder / "chaos.sim"
        write_model(self.model)
        self.runs_file = folder / "prompts.jsonl"
        self.machine = Machine(folder, self.disk)
        self.daemon_proxy = Proxy(self.broker.port, self._seen, self._closed)
        self.sender_proxy = Proxy(self.broker.port)
        self.observer = Observer(self.broker.port, self.recording)
        self.daemon: Daemon
        self.exits: list[str] = []
        """Ends of the daemon that nobody had asked for."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected: set[int] = set()

    async def start(self) -> None:
        """Start everything and wait until the model is loaded."""
        await asyncio.to_thread(self.broker.start)
        await self.daemon_proxy.start()
        await self.sender_proxy.start()
        self._spawn(self.observer.run(), "observer")
        await self.observer.hearing.wait()
        self.daemon = Daemon(
            self.folder, self.daemon_proxy.port, self.recording.node, self._config(), self._environment()
        )
        self.start_daemon()
        await self.until_loaded()

    async def stop(self) -> None:
        """Stop everything, whatever state it is in."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "daemon") and self.daemon.process is not None:
            worker = self.worker_pid()
            self.kill_daemon()
            _signal(worker, signal.SIGKILL)
        await self.daemon_proxy.close()
        await self.sender_proxy.close()
        if self.broker.process is not None:
            self.broker.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(self.broker.stop, signal.SIGKILL)
        self.machine.close()

    # the daemon

    def start_daemon(self) -> None:
        """Start a daemon process; a new life begins."""
        self.daemon.spawn()
        self.recording.lives.append(Life(now()))

    def kill_daemon(self) -> None:
        """Kill the daemon as a crash would."""
        self.daemon.kill()
        self.recording.lives[-1].end = now()

    async def end_daemon(self) -> None:
        """End the daemon in order."""
        status = await asyncio.to_thread(self.daemon.stop, signal.SIGTERM)
        self.recording.lives[-1].end = now()
        if status:
            self.exits.append(f"SIGTERM ended it with status {status}")

    def look_after_daemon(self) -> None:
        """Note an end that nobody asked for, and start it again as systemd would."""
        process = self.daemon.process
        if process is not None and process.poll() is not None:
            self.exits.append(f"it ended by itself with status {process.returncode}")
            self.recording.lives[-1].end = now()
            self.start_daemon()

    def worker_pid(self) -> int | None:
        """Return the process id of the worker; None when there is none."""
        process = self.daemon.process
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() if process else ""
        except OSError:
            return None
        return int(children.split()[-1]) if children.split() else None

    def set_clock_later(self, seconds: float) -> None:
        """Set the wall clock to the true time after a while."""
        self._spawn(self._set_clock(seconds), "clock")

    async def until_loaded(self) -> None:
        """Wait until the daemon serves and its model is loaded.

        Raises:
            TimeoutError: It does not come up; where it hangs is in its log.
        """
        info, life = f"rkllm/{self.recording.node}/info", self.recording.lives[-1].begin
        until = now() + _UP_S
        while now() < until:
            said = self.recording.said
            if any(s.topic == info and s.at > life and '"loaded":true' in s.payload for s in said[-2000:]):
                return
            await asyncio.sleep(0.05)
        state = self._last_words()
        raise TimeoutError(f"{_UP_S:.0f} s after the daemon's start no model is loaded; {state}")

    def _last_words(self) -> str:
        """Let a daemon that hangs write its stacks into its log; return in which state it is."""
        process = self.daemon.process
        if process is None or process.poll() is not None:
            return "it has ended"
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.send_signal(signal.SIGABRT)  # see PYTHONFAULTHANDLER
        return f"its process is in state {fields[0]}"

    # what the checker needs

    async def look(self, after: float, *, last: bool = False) -> None:
        """Record what a new subscriber finds in the retained topics now."""
        at, wall_s, worker = now(), self.machine.wall_s(), self.worker_pid()
        name = f"look-{len(self.recording.looks)}-{at}"
        try:
            found = await look(self.broker.port, name, f"rkllm/{self.recording.node}/+", 0.3)
        except OSError:
            return
        topics = {topic.rsplit("/", 1)[1]: payload.decode() for topic, payload in found.items()}
        self.recording.looks.append(Look(after, at, topics, wall_s, worker, last))

    def read_runs(self) -> None:
        """Record what the library says that it ran."""
        self.recording.ran = read_runs(self.runs_file)

    def go_silent(self) -> None:
        """Leave the daemon's connection half-open."""
        for link in self.daemon_proxy.links:
            if not link.half_open:
                link.half_open = True
                self.recording.links.append(LinkState(now(), "silent"))

    def _config(self) -> dict[str, Any]:
        return {
            "mqtt": {"keepalive_s": KEEPALIVE_S, "will_delay_s": WILL_DELAY_S, "connect_timeout_s": 2},
            "journal": {"path": str(self.disk / "journal.db"), "ballast_mb": 1},
            "models": [{"id": "chaos", "file": str(self.model)}],
            "runtime": {
                "stall_timeout_s": STALL_S,
                "abort_grace_s": ABORT_GRACE_S,
                "restart_max_s": 1,
            },
            "drain_timeout_s": 0.5,
        }

    def _environment(self) -> dict[str, str]:
        own = {"RKLLM_SIM_PROMPTS": str(self.runs_file), "PYTHONFAULTHANDLER": "1"}
        return {**os.environ, **self.machine.environment, **own}

    def _seen(self, link: Link, way: Way, packet: Packet) -> None:
        """Note when the daemon is connected, and when it serves; it is looked at 2 s later."""
        if way is Way.TO_CLIENT and packet.kind == Kind.CONNACK and packet.body[1] == 0:
            self._connected.add(link.number)
            self.recording.links.append(LinkState(now(), "connected"))
        elif way is Way.TO_CLIENT and packet.kind == Kind.SUBACK:
            self.recording.links.append(LinkState(now(), "serving"))
            self._spawn(self._look_later(now()), "look")

    def _closed(self, link: Link) -> None:
        if link.number in self._connected:
            replaced = max(self._connected) > link.number
            self.recording.links.append(LinkState(now(), "gone" if link.half_open or replaced else "down"))

    async def _set_clock(self, seconds: float) -> None:
        began = now()
        await asyncio.sleep(seconds)
        self.machine.set_wall(None)
        self.recording.faults.append(Fault("set_clock", began, now(), ["clock"]))

    async def _look_later(self, after: float) -> None:
        await asyncio.sleep(_LOOK_AFTER_S + self.recording.slack_s)
        await self.look(after)

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def read_runs(path: Path) -> list[Ran]:
    """Return the prompts that the simulated library says it ran (RKLLM_SIM_PROMPTS)."""
    open_runs: dict[tuple[int, int], Ran] = {}
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            said = json.loads(line)
        except ValueError:
            continue  # the process died while it wrote
        key = (said["pid"], said["run"])
        if "begin_ns" in said:
            open_runs[key] = Ran(said["user"], said["begin_ns"] / 1e9)
            found.append(open_runs[key])
        elif key in open_runs:
            open_runs.pop(key).end = said["end_ns"] / 1e9
    return found


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
