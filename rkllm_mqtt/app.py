"""Put the parts together: build them, start them in order, stop them in order.

Start: journal, recovery, then slot and session side by side. Stop: intake, the running job, what is left of
the outbox, `offline`, the worker, the journal.
"""

import asyncio
import contextlib
import gc
import signal
import uuid
from collections.abc import Callable
from typing import Any

from rkllm_mqtt.abilities import Abilities
from rkllm_mqtt.admin import Admin
from rkllm_mqtt.cachecommands import CacheCommands
from rkllm_mqtt.commanding import build_commands
from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Change
from rkllm_mqtt.confirmations import Confirmations
from rkllm_mqtt.conversations import Conversations
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.deadlines import Deadlines
from rkllm_mqtt.discovery import Discovery, build_topics
from rkllm_mqtt.dispatcher import Dispatcher
from rkllm_mqtt.gate import Gate
from rkllm_mqtt.host.servicemanager import ServiceManager
from rkllm_mqtt.intake.neighbours import Neighbours
from rkllm_mqtt.intake.parsing import RequestParser
from rkllm_mqtt.intake.reception import Reception
from rkllm_mqtt.intake.rejections import Rejections
from rkllm_mqtt.inventory import open_inventory
from rkllm_mqtt.lasts import LastAnswers
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.logtopic import LogTopic
from rkllm_mqtt.mqtt.messages import Connection, Outbound, Subscription
from rkllm_mqtt.mqtt.session import Session
from rkllm_mqtt.outbox import Outbox
from rkllm_mqtt.outcomes import Outcomes
from rkllm_mqtt.positions import Positions
from rkllm_mqtt.probing import build_probing
from rkllm_mqtt.recovery import recover_jobs
from rkllm_mqtt.recurring.service import Recurring
from rkllm_mqtt.registrations import Registrations
from rkllm_mqtt.reload import Reload
from rkllm_mqtt.reporter import Reporter, Views
from rkllm_mqtt.router import Router
from rkllm_mqtt.rules import build_policy
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.sender import Sender
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.supervision import Supervision
from rkllm_mqtt.upkeep import Upkeep
from rkllm_mqtt.views import DaemonViews
from rkllm_mqtt.warming import Warming

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
        self._config = config
        self._journal = journal
        self._stop = asyncio.Event()
        self._hurry = False
        self.restart_wanted = False
        """Stop and start again: an administrator asked for it."""
        limits = config.limits
        self._topics = build_topics(config, journal.meta)
        self.recurring = Recurring(
            config.schedules,
            self._topics,
            journal,
            lambda message, where, bare: self._reception.enter(message, where, bare),
            lambda message: self._session.publish(message),
        )
        self.live, self._counters = LiveJobs(build_policy(config)), Counters()
        self._inventory = open_inventory(config)
        self.catalogue = self._inventory.catalogue
        self.slot = Slot(config, self.catalogue, self._slot_changed, self._inventory.check)
        self._abilities = Abilities(config, self.slot, journal)
        self._sender = Sender(lambda: self._session, self.slot.hold, self.slot.release)
        self._upkeep = Upkeep(journal, limits.id_retention_s, lambda: self._registrations.expire())
        self._gate = Gate(self.slot, self.catalogue, journal, config, lambda: self._upkeep.frees_in_s)
        self._supervision = Supervision(
            manager or ServiceManager(), journal.answer, self._overdue, lambda: self.views.status_line()
        )
        self._session = Session(
            config.mqtt,
            client_id=journal.meta["client_id"],
            will=Outbound(self._topics.state("status"), b"offline", qos=1, retain=True),
            subscriptions=[
                *(Subscription(f) for f in self._topics.filters(admin=config.admin.enabled, shared=True)),
                *(Subscription(topic, stored=True) for topic in self.recurring.values.topics),
            ],
            may_publish=self._topics.may_publish,
            session_token=journal.meta.get("session", ""),
            on_message=lambda message: self._router.take(message),
            on_connected=self._connected,
            on_session_lost=self._session_lost,
        )
        self._lasts = LastAnswers(
            journal,
            self._session.publish,
            base=config.base,
            ttl_s=limits.last_ttl_s,
            clients=limits.last_clients,
        )
        self._outbox = Outbox(
            journal,
            self._session.publish,
            lambda: self._session.connected,
            self._lasts.keep,
            {s.reply_topic for s in config.schedules if s.retain and s.reply_topic is not None},
        )
        self._outcomes = outcomes = Outcomes(
            config,
            self.live,
            self._counters,
            journal,
            post=self._outbox.post,
            payload_limit=self._sender.payload_limit,
            on_change=self._queue_changed,
        )
        self._scheduler = Scheduler(config, self.live, self.slot, self.catalogue, journal)
        self._registrations = Registrations(config, self.live, journal, outcomes)
        self.dispatcher = Dispatcher(
            config,
            self.live,
            self._counters,
            journal,
            self.slot,
            self.catalogue,
            self._inventory.kits.build_orders(self._scheduler.paces),
            outcomes,
            self._scheduler,
            send=self._sender.send,
            unloadable=self._gate.unloadable,
            on_change=self._queue_changed,
        )
        self._warming = Warming(
            config,
            self.slot,
            self._scheduler,
            self.dispatcher.handover,
            self.dispatcher.priming,
            self._registrations,
            journal.now,
        )
        self.probing = build_probing(config, self.slot, self._scheduler, self.dispatcher.priming)
        self.conversations = Conversations(
            self.live, journal, (config.node, *config.groups), self.dispatcher.arrived
        )
        self._deadlines = Deadlines(self.live, journal.now, self.dispatcher.expire)
        self.views = DaemonViews(
            config,
            self._topics,
            self.live,
            self._counters,
            journal,
            self.slot,
            self.catalogue,
            self.dispatcher,
            self._scheduler,
            self._outbox,
            self._session,
            uid=journal.meta["uid"],
            boot_id=uuid.uuid4().hex,
            accepting=lambda: self._gate.accepting,
            prefix=self._warming.told,
            unapplied=lambda: [*self._reload.reasons, *self.probing.reasons],
        )
        self.reporter = Reporter(
            self._topics,
            Views(
                self.views.info,
                self.views.queue,
                self.views.health,
                self.views.stats,
                lambda: self._counters.finished + self._counters.rejected + self._counters.dropped,
            ),
            self._session.publish,
            lambda: self._session.connected,
        )
        self._positions = Positions(
            self.live,
            self._sender.send,
            first=self._scheduler.outlooks.first,
            loading_since=lambda: self.slot.loading_since,
        )
        self._confirmations = Confirmations(
            config.node,
            self._sender.send,
            waits=self.live.waiting.__contains__,
            outlooks_of=self._scheduler.outlooks.outlooks,
            queue_length=lambda: len(self.views.staged()) + len(self.live.waiting),
        )
        self._parser = RequestParser(config, self.catalogue)
        self.caches = CacheCommands(self._scheduler.cache, self._registrations, self._parser)
        """What an administrator does with prompt-cache files."""
        self._reception = Reception(
            config,
            self._topics,
            self._parser,
            self.live,
            self._counters,
            journal,
            Rejections(config.node, self._counters, self._sender.send),
            self._neighbours(),
        )
        self._router = Router(
            self._topics,
            self._session,
            self._reception,
            Admin(self._topics, build_commands(self), self._session.publish),
            self._counters,
            self._stop.is_set,
            lambda: self._spawn(self._discovery.announce()),
            self.recurring.values,
        )
        self._discovery = Discovery(config, journal, self._session, self.slot, self.views.info, outcomes.note)
        of_jobs = (self._parser, self._reception, self._outcomes, self.dispatcher, self.slot, self._gate)
        changeable = (*of_jobs, self.views, self._lasts, self._upkeep, self._inventory)
        self._reload = Reload(config, read, changeable, self._supervision, self._reloaded)
        self._log_topic = LogTopic(self._topics.state("log"), self._sender.send)
        for part in (self.slot, self.dispatcher, self._warming):
            self.catalogue.listen(part.models_changed)
        self.catalogue.listen(self._models_changed)
        self._loaded: str | None = None
        self._background: set[asyncio.Task[None]] = set()

    # what the admin commands act on, beside the parts without an underscore

    def set_flow(self, *, paused: bool, draining: bool) -> None:
        """Pause: start no job. Drain: take no new prompt and work off what waits."""
        self.dispatcher.paused = self._scheduler.outlooks.paused = paused
        self._gate.draining = draining
        self.dispatcher.wake()
        self._queue_changed()

    def stop(self, *, restart: bool = False) -> None:
        """Begin to stop in order; the second call does not wait for the running job."""
        self.restart_wanted = restart
        if self._stop.is_set():
            self._hurry = True
        self._stop.set()

    # life

    async def run(self) -> None:
        """Serve until `stop`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.ask)
        self._log_topic.install(loop)
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
                        ("slot", self.slot.run()),
                        ("dispatcher", self.dispatcher.run()),
                        ("models", self._inventory.run()),
                        ("outbox", self._outbox.run()),
                        ("lasts", self._lasts.run()),
                        ("positions", self._positions.run()),
                        ("queue", self.reporter.run_queue()),
                        ("health", self.reporter.run_health()),
                        ("upkeep", self._upkeep.run()),
                        ("schedules", self.recurring.run()),
                        ("reload", self._reload.run()),
                        ("supervision", self._supervision.run()),
                        ("session", self._session.run()),
                    )
                ]
                await self._stop.wait()
                await self._shut_down()
                for task in running:
                    task.cancel()
        finally:
            self._log_topic.remove()
            self._deadlines.close()

    async def _recover(self) -> None:
        """Take up what an earlier process left: waiting jobs, unsent outcomes, retained `last` topics."""
        recovered = await self._journal.recover()
        await self._lasts.recover()
        await self._discovery.recover()
        self._outbox.recover(recovered.undelivered)
        boots = int(self._journal.meta.get("boots", "0")) + 1
        await self._journal.set_meta("boots", str(boots))
        await recover_jobs(
            recovered.waiting,
            boots,
            self._journal.now(),
            self.live,
            self._deadlines,
            self._outcomes,
            self.catalogue.ids,
        )
        await self._registrations.recover()
        log.info("recovered", waiting=len(self.live.waiting), undelivered=len(recovered.undelivered))

    async def _shut_down(self) -> None:
        self._supervision.stopping(self._config.drain_timeout_s, restart=self.restart_wanted)
        log.info("stopping", running=len(self.live.in_slot), waiting=len(self.live.waiting))
        self._reception.closed = self._gate.stopping = True
        self._queue_changed()
        shared = [f for f in self._topics.filters(admin=False, shared=True) if f.startswith("$share/")]
        if shared:
            await self._session.unsubscribe(shared)
        finished = asyncio.ensure_future(self.dispatcher.stop(self._config.drain_timeout_s))
        while not finished.done():
            await asyncio.wait({finished}, timeout=0.2)
            if self._hurry:
                await self.dispatcher.stop(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._reception.drained()  # what is left unacknowledged comes again
                await self._outbox.drained()
        await asyncio.gather(self._session.close([self.reporter.offline()]), self.slot.close())
        self._scheduler.cache.close()

    # between the parts

    def _reloaded(self, config: Config) -> None:
        self._config = config
        self.reporter.tell_info()
        self._queue_changed()

    def _overdue(self) -> str | None:
        return self.slot.overdue(asyncio.get_running_loop().time())

    def _neighbours(self) -> Neighbours:
        return Neighbours(
            ack=self._session.ack,
            accepted=self._confirmations.accepted,
            begin_early=self.dispatcher.begin_early,
            queued=self._queued,
            cancel=self.dispatcher.cancel,
            resend=self._outbox.again,
            cancel_unknown=self._confirmations.cancel_unknown,
            refusal=self._gate.refusal,
            too_late=self._scheduler.outlooks.too_late,
            capabilities=self._abilities.now,
            frees_in_s=self._scheduler.outlooks.frees_in_s,
            prepare=self._registrations.prepare,
            send=self._sender.send,
        )

    def _connected(self, _connection: Connection) -> None:
        self.reporter.announce()
        self.recurring.announce()
        self._spawn(self._discovery.announce())
        self._outbox.connected()

    def _session_lost(self, token: str) -> None:
        self._spawn(self._outcomes.note(lambda: self._journal.set_meta("session", token)))

    def _queued(self, job: Job) -> None:
        if not self._registrations.take(job):
            self._deadlines.watch(job)
            self.dispatcher.arrived(job)
        self._queue_changed()

    def _queue_changed(self) -> None:
        self.reporter.changed()
        self._positions.changed()

    def _slot_changed(self) -> None:
        if self.slot.problem is not None:
            self._inventory.fit_window(self.slot.wanted, self.slot.problem.message)
        self.dispatcher.wake()
        self._queue_changed()
        if self.slot.loaded != self._loaded:
            self._loaded = self.slot.loaded
            self._spawn(self._outcomes.note(self._abilities.keep))
            self.reporter.tell_info()
        self._spawn(self._discovery.refresh())

    def _models_changed(self, _change: Change) -> None:
        self.reporter.tell_info()
        self._queue_changed()
        self._spawn(self._discovery.refresh())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
