"""The parts of one daemon, joined: what is made of what, and who is told what by whom.

Nothing runs here: `app` gives the parts that work by themselves their tasks. What comes later in the order is
reached by a callable.
"""

import asyncio
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
from rkllm_mqtt.core.health import SMALL_PACKET_BYTES, packets_small
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


class Parts:
    """Everything that a daemon consists of."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        *,
        stopping: Callable[[], bool],
        restart: Callable[[], None],
        manager: ServiceManager | None = None,
        read: Callable[[], Config] | None = None,
    ) -> None:
        """Make and join them.

        Args:
            config: Of the daemon.
            journal: Open.
            stopping: Whether the daemon is about to end.
            restart: Stops the daemon, to be started again.
            manager: Who supervises us; None is nobody.
            read: Reads the configuration again at SIGHUP.
        """
        self.restart = restart
        self._stopping = stopping
        self._read = read
        self._loaded: str | None = None
        self._background: set[asyncio.Task[None]] = set()
        self.config = config
        self.journal = journal
        limits = config.limits
        self.topics = build_topics(config, journal.meta)
        self.recurring = Recurring(
            config.schedules,
            self.topics,
            journal,
            lambda message, where, bare: self.reception.enter(message, where, bare),
            lambda message: self.session.publish(message),
        )
        self.live, self._counters = LiveJobs(build_policy(config)), Counters()
        self.inventory = open_inventory(config)
        self.catalogue = self.inventory.catalogue
        self.slot = Slot(config, self.catalogue, self._slot_changed, self.inventory.check)
        self._abilities = Abilities(config, self.slot, journal)
        self._sender = Sender(lambda: self.session, self.slot.hold, self.slot.release)
        self.upkeep = Upkeep(journal, limits.id_retention_s, lambda: self.registrations.expire())
        self.gate = Gate(self.slot, self.catalogue, journal, config, lambda: self.upkeep.frees_in_s)
        self.supervision = Supervision(
            manager or ServiceManager(), journal.answer, self._overdue, lambda: self.views.status_line()
        )
        self._join_delivery()
        self._join_queue()
        self._join_reports()
        self._join_intake()

    def set_flow(self, *, paused: bool, draining: bool) -> None:
        """Pause: start no job. Drain: take no new prompt and work off what waits."""
        self.dispatcher.paused = self.scheduler.outlooks.paused = paused
        self.gate.draining = draining
        self.dispatcher.wake()
        self.queue_changed()

    def queue_changed(self) -> None:
        """Tell whoever waits that the queue or the slot has changed."""
        self.reporter.changed()
        self.positions.changed()

    def _join_delivery(self) -> None:
        """From an outcome to the broker."""
        config, journal = self.config, self.journal
        self.session = Session(
            config.mqtt,
            client_id=journal.meta["client_id"],
            will=Outbound(self.topics.state("status"), b"offline", qos=1, retain=True),
            subscriptions=[
                *(Subscription(f) for f in self.topics.filters(admin=config.admin.enabled, shared=True)),
                *(Subscription(topic, stored=True) for topic in self.recurring.values.topics),
            ],
            may_publish=self.topics.may_publish,
            session_token=journal.meta.get("session", ""),
            on_message=lambda message: self._router.take(message),
            on_connected=self._connected,
            on_session_lost=self._session_lost,
        )
        self.lasts = LastAnswers(
            journal,
            self.session.publish,
            base=config.base,
            ttl_s=config.limits.last_ttl_s,
            clients=config.limits.last_clients,
        )
        self.outbox = Outbox(
            journal,
            self.session.publish,
            lambda: self.session.connected,
            self.lasts.keep,
            {s.reply_topic for s in config.schedules if s.retain and s.reply_topic is not None},
        )
        self.outcomes = Outcomes(
            config,
            self.live,
            self._counters,
            journal,
            post=self.outbox.post,
            payload_limit=self._sender.payload_limit,
            on_change=self.queue_changed,
        )

    def _join_queue(self) -> None:
        """From a stored job to its outcome."""
        config, journal = self.config, self.journal
        self.scheduler = Scheduler(config, self.live, self.slot, self.catalogue, journal)
        self.registrations = Registrations(config, self.live, journal, self.outcomes)
        self.dispatcher = Dispatcher(
            config,
            self.live,
            self._counters,
            journal,
            self.slot,
            self.catalogue,
            self.inventory.kits.build_orders(self.scheduler.paces),
            self.outcomes,
            self.scheduler,
            send=self._sender.send,
            unloadable=self.gate.unloadable,
            on_change=self.queue_changed,
        )
        self._warming = Warming(
            config,
            self.slot,
            self.scheduler,
            self.dispatcher.handover,
            self.dispatcher.priming,
            self.registrations,
            journal.now,
        )
        self.probing = build_probing(config, self.slot, self.scheduler, self.dispatcher.priming)
        self.conversations = Conversations(
            self.live, journal, (config.node, *config.groups), self.dispatcher.arrived
        )
        self.deadlines = Deadlines(self.live, journal.now, self.dispatcher.expire)

    def _join_reports(self) -> None:
        """What is told of the whole, and to those who wait."""
        config, journal = self.config, self.journal
        self.views = DaemonViews(
            config,
            self.topics,
            self.live,
            self._counters,
            journal,
            self.slot,
            self.catalogue,
            self.dispatcher,
            self.scheduler,
            self.outbox,
            self.session,
            uid=journal.meta["uid"],
            boot_id=uuid.uuid4().hex,
            accepting=lambda: self.gate.accepting,
            prefix=self._warming.told,
            unapplied=lambda: [*self.reload.reasons, *self.probing.reasons, *self._router.reasons],
        )
        self.reporter = Reporter(
            self.topics,
            Views(
                self.views.info,
                self.views.queue,
                self.views.health,
                self.views.stats,
                lambda: self._counters.finished + self._counters.rejected + self._counters.dropped,
            ),
            self.session.publish,
            lambda: self.session.connected,
        )
        self.positions = Positions(
            self.live,
            self._sender.send,
            first=self.scheduler.outlooks.first,
            loading_since=lambda: self.slot.loading_since,
        )
        self._confirmations = Confirmations(
            config.node,
            self._sender.send,
            waits=self.live.waiting.__contains__,
            outlooks_of=self.scheduler.outlooks.outlooks,
            queue_length=lambda: len(self.views.staged()) + len(self.live.waiting),
        )

    def _join_intake(self) -> None:
        """From the broker to a stored job."""
        config, journal = self.config, self.journal
        self._parser = RequestParser(config, self.catalogue)
        self.caches = CacheCommands(self.scheduler.cache, self.registrations, self._parser)
        """What an administrator does with prompt-cache files."""
        self.reception = Reception(
            config,
            self.topics,
            self._parser,
            self.live,
            self._counters,
            journal,
            Rejections(config.node, self._counters, self._sender.send),
            self._neighbours(),
        )
        self._router = Router(
            self.topics,
            self.session,
            self.reception,
            Admin(self.topics, build_commands(self), self.session.publish),
            self._counters,
            self._stopping,
            lambda: self._spawn(self.discovery.announce()),
            self.recurring.values,
            self.reporter,
        )
        self.discovery = Discovery(
            config, journal, self.session, self.slot, self.views.info, self.outcomes.note
        )
        of_jobs = (self._parser, self.reception, self.outcomes, self.dispatcher, self.slot, self.gate)
        changeable = (*of_jobs, self.views, self.lasts, self.upkeep, self.inventory, self.scheduler)
        self.reload = Reload(
            config, self._read, (*changeable, self._warming), self.supervision, self._reloaded
        )
        self.log_topic = LogTopic(self.topics.state("log"), self._sender.send)
        for part in (self.slot, self.dispatcher, self._warming):
            self.catalogue.listen(part.models_changed)
        self.catalogue.listen(self._models_changed)

    def _reloaded(self, config: Config) -> None:
        self.config = config
        self.reporter.tell_info()
        self.queue_changed()

    def _overdue(self) -> str | None:
        return self.slot.overdue(asyncio.get_running_loop().time())

    def _neighbours(self) -> Neighbours:
        return Neighbours(
            ack=self.session.ack,
            accepted=self._confirmations.accepted,
            begin_early=self.dispatcher.begin_early,
            queued=self._queued,
            cancel=self.dispatcher.cancel,
            resend=self.outbox.again,
            cancel_unknown=self._confirmations.cancel_unknown,
            refusal=self.gate.refusal,
            too_late=self.scheduler.outlooks.too_late,
            capabilities=self._abilities.now,
            frees_in_s=self.scheduler.outlooks.frees_in_s,
            prepare=self.registrations.prepare,
            send=self._sender.send,
        )

    def _connected(self, connection: Connection) -> None:
        largest = connection.maximum_packet_bytes
        if largest is not None and largest < SMALL_PACKET_BYTES:
            reason = packets_small(largest)  # `health` itself may not fit
            log.warning(reason.code, maximum_bytes=largest, hint=reason.hint)
        self.reporter.announce()
        self.recurring.announce()
        self._spawn(self.discovery.announce())
        self.outbox.connected()

    def _session_lost(self, token: str) -> None:
        self._spawn(self.outcomes.note(lambda: self.journal.set_meta("session", token)))

    def _queued(self, job: Job) -> None:
        if not self.registrations.take(job):
            self.deadlines.watch(job)
            self.dispatcher.arrived(job)
        self.queue_changed()

    def _slot_changed(self) -> None:
        if self.slot.problem is not None:
            self.inventory.fit_window(self.slot.wanted, self.slot.problem.message)
        self.dispatcher.wake()
        self.queue_changed()
        if self.slot.loaded != self._loaded:
            self._loaded = self.slot.loaded
            self._spawn(self.outcomes.note(self._abilities.keep))
            self.reporter.tell_info()
        self._spawn(self.discovery.refresh())

    def _models_changed(self, _change: Change) -> None:
        self.reporter.tell_info()
        self.queue_changed()
        self._spawn(self.discovery.refresh())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
