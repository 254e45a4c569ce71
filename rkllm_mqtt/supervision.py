"""Tell the service manager what the daemon does, and vouch for it only while it really makes progress.

Rule 1: `WATCHDOG=1` goes out when the event loop turns, the journal's thread answers, and nothing in the slot
is later than its own clock allows. A bare timer would vouch for a dead daemon.
"""

import asyncio
from collections.abc import Callable

from rkllm_mqtt.host.servicemanager import ServiceManager
from rkllm_mqtt.logs import get_logger

log = get_logger(__name__)

_LOOK_S = 5.0
"""Time between two looks at what the status line says."""
_LOOKS_PER_WATCHDOG = 4
_AFTER_DRAIN_S = 35.0
"""What a stop takes beside the drain at most: the farewell, and a worker that has to be killed."""


class Supervision:
    """The daemon's side of systemd's supervision; silent without a service manager."""

    def __init__(
        self,
        manager: ServiceManager,
        journal_answers: Callable[[], "asyncio.Future[None]"],
        overdue: Callable[[], str | None],
        status: Callable[[], str],
    ) -> None:
        """Keep the arguments.

        Args:
            manager: Who is told.
            journal_answers: Asks the journal's thread for a sign of life.
            overdue: Names what is later than its own clock allows; None when nothing is.
            status: What the daemon does, in one line.
        """
        self._manager = manager
        self._journal_answers = journal_answers
        self._overdue = overdue
        self._status = status
        self._asked: asyncio.Future[None] | None = None
        self._told = ""
        self._withheld = ""
        self._farewell = ""

    async def run(self) -> None:
        """Say that we are ready, then that we live; cancelled by the daemon's task group."""
        if self._manager.address is None:
            return
        self._manager.ready()
        pause = min(
            _LOOK_S, (self._manager.watchdog_s or _LOOK_S * _LOOKS_PER_WATCHDOG) / _LOOKS_PER_WATCHDOG
        )
        while True:
            self._tell_status()
            reason = await self._why_not(pause)
            if reason is None:
                self._manager.alive()
                self._withheld = ""
            elif reason != self._withheld:
                self._withheld = reason
                log.error("watchdog_withheld", reason=reason)
            await asyncio.sleep(pause)

    def reloading(self) -> None:
        """A reload begins; `reloaded` ends it."""
        self._manager.reloading()

    def reloaded(self) -> None:
        """The reload is over, whatever came of it."""
        self._manager.ready()

    def stopping(self, drain_timeout_s: float, *, restart: bool) -> None:
        """The daemon begins to stop, or to restart within its process."""
        if restart:
            # After STOPPING the manager would wait for our end, and kill what comes back instead.
            self._manager.reloading()
        else:
            self._manager.stopping(drain_timeout_s + _AFTER_DRAIN_S)
        self._farewell = "restarting" if restart else "stopping: the running prompt may end"
        self._tell_status()

    def _tell_status(self) -> None:
        line = self._farewell or self._status()
        if line != self._told and self._manager.status(line):
            self._told = line

    async def _why_not(self, patience_s: float) -> str | None:
        """Return why the watchdog must not be fed now; None when everything moves."""
        if (late := self._overdue()) is not None:
            return late
        # One question at a time: a thread that hangs must not find a heap of them when it comes back.
        if self._asked is None:
            self._asked = self._journal_answers()
        await asyncio.wait({self._asked}, timeout=patience_s)
        if not self._asked.done():
            return "the journal's thread does not answer"
        # A full or failing disk is an answer, too: the daemon says so, and a restart would not mend it.
        self._asked.exception()
        self._asked = None
        return None
