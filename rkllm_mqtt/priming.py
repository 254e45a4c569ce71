"""Work for the idle slot: prompts that are computed, restored or saved because somebody will need them.

Rule 1: nothing is begun while a job waits, runs or is staged, nor before the slot was idle for a moment.
Rule 2: a job that comes ends it at its next chunk; the job is staged behind it meanwhile.
"""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.runtime.order import RunOrder
from rkllm_mqtt.runtime.run import Run, RunEnd
from rkllm_mqtt.runtime.slot import Slot

_IDLE_S = 0.15
"""A question often follows right behind an answer; it shall not meet work of ours."""


class Prime(Struct, frozen=True):
    """A prompt that is to be computed in an idle slot."""

    order: RunOrder
    """Of a prime run for the loaded model."""
    ended: Callable[[Run, RunEnd | None], None] = lambda _run, _end: None
    """Called when it has ended, also before its time; None: the worker was lost."""


def prime_of(order: RunOrder | None) -> Prime | None:
    """Return an order as a wish of which nobody needs to hear the end."""
    return None if order is None else Prime(order)


Source = Callable[[], Prime | None]
"""Says what is worth computing now; None: nothing."""


class Priming:
    """At most one prime run, in a slot that is idle."""

    def __init__(self, slot: Slot, follow: Callable[[Run], None], wake: Callable[[], None]) -> None:
        """Keep the arguments.

        Args:
            slot: Takes the runs.
            follow: Called with each run that was handed to the worker.
            wake: Lets the dispatcher look whether the slot is idle.
        """
        self._slot = slot
        self._follow = follow
        self._wake = wake
        self._run: Run | None = None
        self._is_insisted = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self.sources: list[Source] = []
        """Asked in this order."""
        self.slot_s = 0.0
        """Slot time that prime runs have used."""

    @property
    def busy(self) -> bool:
        """Return whether a prime run is in the worker."""
        return self._run is not None

    def idle(self) -> None:
        """The dispatcher has nothing to do: begin something when that was so for a moment."""
        if self._run is not None or not self.sources or not self._slot.room or self._slot.columns > 1:
            return
        if self._is_due:
            self._is_due = False
            self._begin()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_IDLE_S, self._fall_due)

    def insist(self, order: RunOrder) -> bool:
        """Run something short in front of the job whose turn it is; return False when there is no room."""
        if self._run is not None or not self._slot.room:
            return False
        self._submit(Prime(order))
        self._is_insisted = True
        return True

    def give_way(self) -> None:
        """A job is there: begin nothing, and end what has begun, unless it was to be in front of the job."""
        self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._run is not None and not self._is_insisted:
            self._run.give_way()

    async def close(self, timeout_s: float) -> None:
        """Begin nothing more; returns when what has begun has ended, or after so many seconds."""
        self.give_way()
        if self._run is not None:
            await asyncio.wait({self._run.ended}, timeout=timeout_s)

    def wake(self) -> None:
        """A source has something that it had not: look whether the slot is idle."""
        self._wake()

    def _fall_due(self) -> None:
        self._timer, self._is_due = None, True
        self._wake()

    def _begin(self) -> None:
        prime = next((found for source in self.sources if (found := source()) is not None), None)
        if prime is not None:
            self._submit(prime)

    def _submit(self, prime: Prime) -> None:
        run = self._run = self._slot.submit(prime.order, lambda _pieces, _tokens: None)
        run.ended.add_done_callback(lambda ended: self._end(prime, run, ended))
        self._follow(run)

    def _end(self, prime: Prime, run: Run, ended: "asyncio.Future[RunEnd]") -> None:
        self._run, self._is_insisted = None, False
        end = None if ended.cancelled() or isinstance(ended.exception(), SlotLost) else ended.result()
        if end is not None:
            self.slot_s += end.run_ms / 1000
        prime.ended(run, end)
        self._wake()
