"""The life of a daemon: its parts are started in order and stopped in order.

Start: journal, recovery, then slot and session side by side. Stop: intake, the running job, what is left of
the outbox, `offline`, the worker, the journal.
"""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable

from rkllm_mqtt.config import Config
from rkllm_mqtt.host.servicemanager import ServiceManager
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.parts import Parts
from rkllm_mqtt.recovery import recover_jobs
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_FAREWELL_S = 3.0


class Daemon:
    """One running daemon."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        manager: ServiceManager | None = None,
        read: Callable[[], Config] | None = None,
    ) -> None:
        """Build the parts; nothing runs before `run`.

        Args:
            config: Of this daemon.
            journal: Open.
            manager: Who supervises us; None is nobody.
            read: Reads the configuration again at SIGHUP.
        """
        self._journal = journal
        self._stop = asyncio.Event()
        self._hurry = False
        self.restart_wanted = False
        """Stop and start again: an administrator asked for it."""
        self.parts = Parts(
            config,
            journal,
            stopping=self._stop.is_set,
            restart=lambda: self.stop(restart=True),
            manager=manager,
            read=read,
        )

    def stop(self, *, restart: bool = False) -> None:
        """Begin to stop in order; the second call does not wait for the running job."""
        self.restart_wanted = restart
        if self._stop.is_set():
            self._hurry = True
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`."""
        parts = self.parts
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, parts.reload.ask)
        parts.log_topic.install(loop)
        try:
            await self._recover()
            # What the imports made lives as long as we do: a full collection that walks through all of it
            # would stop every answer for tens of milliseconds.
            gc.collect()
            gc.freeze()
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("slot", parts.slot.run()),
                        ("dispatcher", parts.dispatcher.run()),
                        ("models", parts.inventory.run()),
                        ("outbox", parts.outbox.run()),
                        ("lasts", parts.lasts.run()),
                        ("positions", parts.positions.run()),
                        ("queue", parts.reporter.run_queue()),
                        ("health", parts.reporter.run_health()),
                        ("upkeep", parts.upkeep.run()),
                        ("schedules", parts.recurring.run()),
                        ("reload", parts.reload.run()),
                        ("supervision", parts.supervision.run()),
                        ("session", parts.session.run()),
                    )
                ]
                await self._stop.wait()
                await self._shut_down()
                for task in running:
                    task.cancel()
        finally:
            parts.log_topic.remove()
            parts.deadlines.close()

    async def _recover(self) -> None:
        """Take up what an earlier process left: waiting jobs, unsent outcomes, retained `last` topics."""
        parts = self.parts
        recovered = await self._journal.recover()
        await parts.lasts.recover()
        await parts.discovery.recover()
        parts.outbox.recover(recovered.undelivered)
        boots = int(self._journal.meta.get("boots", "0")) + 1
        await self._journal.set_meta("boots", str(boots))
        await recover_jobs(
            recovered.waiting,
            boots,
            self._journal.now(),
            parts.live,
            parts.deadlines,
            parts.outcomes,
            parts.catalogue.ids,
        )
        await parts.registrations.recover()
        log.info("recovered", waiting=len(parts.live.waiting), undelivered=len(recovered.undelivered))

    async def _shut_down(self) -> None:
        parts = self.parts
        parts.supervision.stopping(parts.config.drain_timeout_s, restart=self.restart_wanted)
        log.info("stopping", running=len(parts.live.in_slot), waiting=len(parts.live.waiting))
        parts.reception.closed = parts.gate.stopping = True
        parts.queue_changed()
        shared = [f for f in parts.topics.filters(admin=False, shared=True) if f.startswith("$share/")]
        if shared:
            await parts.session.unsubscribe(shared)
        finished = asyncio.ensure_future(parts.dispatcher.stop(parts.config.drain_timeout_s))
        while not finished.done():
            await asyncio.wait({finished}, timeout=0.2)
            if self._hurry:
                await parts.dispatcher.stop(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await parts.reception.drained()  # what is left unacknowledged comes again
                await parts.outbox.drained()
        await asyncio.gather(parts.session.close([parts.reporter.offline()]), parts.slot.close())
        parts.scheduler.cache.close()
