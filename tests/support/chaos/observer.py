"""Hears everything of a node on a connection of its own, straight from the broker."""

import asyncio
import contextlib
import time

from chaos.packets import Publication
from chaos.recording import Fault, Recording, Said
from chaos.wire import Wire, now

_TICK_S = 0.05
_MEASURE_S = 0.5
_WORK_S = 0.005
_SLOW = 3.0
"""A machine that gives us a core for less than a third of the time tells nothing of how fast a daemon is."""


class Observer:
    """Records messages, the times when it could not hear, and those when the machine had no time for us."""

    def __init__(self, port: int, recording: Recording) -> None:
        self._port = port
        self._recording = recording
        self._number = 0
        self.hearing = asyncio.Event()

    async def run(self) -> None:
        """Stay connected; cancelled by who started it."""
        deaf_since = now()
        watch = asyncio.create_task(self._watch_machine(), name="machine")
        wire = None
        try:
            while True:
                self._number += 1
                with contextlib.suppress(OSError):
                    wire = await Wire.open(
                        self._port,
                        f"observer-{self._number}",
                        self._take,
                        (f"rkllm/{self._recording.node}/#",),
                    )
                    if self.hearing.is_set() or self._number > 1:
                        self._recording.faults.append(Fault("deaf", deaf_since, now(), ["observer"]))
                    self.hearing.set()
                    await wire.lost
                    deaf_since = now() - 3  # what it missed while it waited for a sign of life
                await asyncio.sleep(0.05)
        finally:
            watch.cancel()
            if wire is not None:
                wire.close()

    def _take(self, message: Publication) -> None:
        payload = message.payload.decode(errors="backslashreplace")
        self._recording.said.append(Said(now(), message.topic, payload, message.retain))

    async def _watch_machine(self) -> None:
        measured_at = now()
        while True:
            before = now()
            await asyncio.sleep(_TICK_S)
            self._recording.lag_s = max(self._recording.lag_s, now() - before - _TICK_S)
            if now() - measured_at > _MEASURE_S:
                self._measure(measured_at)
                measured_at = now()

    def _measure(self, since: float) -> None:
        """Do a little work, and record a fault of the machine when it takes several times its own time."""
        began, cpu = now(), time.thread_time()
        while time.thread_time() - cpu < _WORK_S:
            pass
        if now() - began > _SLOW * _WORK_S:
            self._recording.faults.append(Fault("slow", since, now(), ["machine"]))
