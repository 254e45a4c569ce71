"""The promise of `supervision.py`: the service manager hears what we do, and that we live while we do."""

import asyncio
import os
import signal
import socket
import threading
import time
from contextlib import asynccontextmanager

import pytest
from live_daemon import Daemon
from live_jobs import opened
from live_slot import MODELS, PATIENCE_S, in_loop

from rkllm_mqtt.host.servicemanager import ServiceManager
from rkllm_mqtt.supervision import Supervision

WATCHDOG_S = 0.4


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name)
        self.socket.settimeout(PATIENCE_S)
        self.said = []

    def next(self):
        """Return the next datagram."""
        self.said.append(self.socket.recv(4096).decode())
        return self.said[-1]

    def until(self, start):
        """Return the first datagram from now on that begins so."""
        until = time.monotonic() + PATIENCE_S
        while not self.next().startswith(start):
            assert time.monotonic() < until, self.said[-20:]
        return self.said[-1]

    def forget(self):
        """Drop what has come."""
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            self.socket.settimeout(PATIENCE_S)


@pytest.fixture
def manager(tmp_path):
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@asynccontextmanager
async def supervised(manager, tmp_path, overdue=lambda: None, status=lambda: "idle"):
    """Run the part on a real journal; yields it and the journal."""
    async with opened(tmp_path) as journal:
        part = Supervision(ServiceManager(manager.name, WATCHDOG_S), journal.answer, overdue, status)
        task = asyncio.create_task(part.run())
        yield part, journal
        task.cancel()
        await asyncio.wait({task})


async def heard(manager, start):
    return await asyncio.to_thread(manager.until, start)


@in_loop
async def test_it_is_ready_then_says_what_it_does_and_lives(manager, tmp_path):
    line = ["idle"]
    async with supervised(manager, tmp_path, status=lambda: line[0]):
        assert await asyncio.to_thread(manager.next) == "READY=1"
        assert await asyncio.to_thread(manager.next) == "STATUS=idle"
        for _ in range(3):  # an unchanged line is not told again
            assert await asyncio.to_thread(manager.next) == "WATCHDOG=1"
        line[0] = "busy"
        assert await heard(manager, "STATUS=") == "STATUS=busy"


@in_loop
async def test_what_is_later_than_its_clock_stops_the_feeding_until_it_is_over(manager, tmp_path):
    late = [None]
    async with supervised(manager, tmp_path, overdue=lambda: late[0]):
        await heard(manager, "WATCHDOG=1")
        late[0] = "a run is beyond all of its clocks"
        await asyncio.sleep(0)
        manager.forget()
        manager.socket.settimeout(2 * WATCHDOG_S)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(manager.until, "WATCHDOG=1")
        manager.socket.settimeout(PATIENCE_S)
        late[0] = None
        await heard(manager, "WATCHDOG=1")


@in_loop
async def test_a_journal_whose_thread_hangs_stops_the_feeding(manager, tmp_path):
    goes_on = threading.Event()
    async with supervised(manager, tmp_path) as (_, journal):
        await heard(manager, "WATCHDOG=1")
        hanging = journal._writer.submit(lambda _: goes_on.wait())
        try:
            manager.forget()
            manager.socket.settimeout(2 * WATCHDOG_S)
            with pytest.raises(TimeoutError):
                # At most one more was on its way.
                await asyncio.to_thread(lambda: [manager.until("WATCHDOG=1") for _ in range(2)])
        finally:
            goes_on.set()
        await hanging
        manager.socket.settimeout(PATIENCE_S)
        await heard(manager, "WATCHDOG=1")


@in_loop
async def test_a_journal_that_cannot_write_still_answers(manager, tmp_path):
    async with supervised(manager, tmp_path) as (_, journal):
        await journal.close()
        await heard(manager, "WATCHDOG=1")


@in_loop
async def test_a_restart_is_no_end(manager, tmp_path):
    async with supervised(manager, tmp_path) as (part, _):
        await heard(manager, "WATCHDOG=1")
        part.stopping(5, restart=True)
        assert "MONOTONIC_USEC=" in await heard(manager, "RELOADING=1")
        assert await heard(manager, "STATUS=") == "STATUS=restarting"
        assert not [text for text in manager.said if "STOPPING" in text]


@in_loop
async def test_nothing_runs_without_a_service_manager():
    part = Supervision(
        ServiceManager(), lambda: pytest.fail("asked"), lambda: pytest.fail("asked"), lambda: ""
    )
    await part.run()


def test_a_daemon_tells_systemd_its_whole_life(manager, connect, shared_broker, tmp_path):
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": manager.name,
        "WATCHDOG_USEC": "2000000",
    }
    faulty = [{"id": "faulty", "file": str(MODELS / "faulty.sim")}]
    node = f"w{os.getpid()}-{time.monotonic_ns()}"[:31]
    daemon = Daemon(tmp_path, shared_broker.port, node, {"models": faulty}, environment)
    daemon.afresh = True
    watcher = connect(f"rkllm/{node}/#")
    daemon.start(watcher)
    try:
        assert manager.next() == "READY=1"
        manager.until("STATUS=idle with faulty, 0 waiting")
        manager.until("WATCHDOG=1")
        watcher.publish(f"{daemon.client('app')}/request/q", {"prompt": "endless", "max_tokens": 4000})
        manager.until("STATUS=busy with faulty")
        worker = daemon.worker_pid(watcher)
        with open(f"/proc/{worker}/environ", "rb") as file:  # noqa: PTH123 - no text, and it is one read
            assert b"NOTIFY_SOCKET" not in file.read()
        daemon.process.send_signal(signal.SIGHUP)
        manager.until("RELOADING=1\nMONOTONIC_USEC=")
        manager.until("READY=1")
        # A daemon that stands still says nothing, whatever its process looks like from outside.
        daemon.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED | os.WNOWAIT)
        manager.forget()
        manager.socket.settimeout(1.5)
        with pytest.raises(TimeoutError):
            manager.next()
        manager.socket.settimeout(PATIENCE_S)
        daemon.process.send_signal(signal.SIGCONT)
        manager.until("WATCHDOG=1")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGTERM)  # the second one does not wait for the running prompt
        assert manager.until("STOPPING=1") == "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000"
        assert daemon.process.wait(PATIENCE_S) == 0
    finally:
        daemon.stop(signal.SIGKILL) if daemon.process.poll() is None else None
