"""The journal: what was promised, safe on disk before anybody is told.

Rule 1: an awaited call that returned is on disk; one that raised has left nothing behind.
Rule 2: calls take effect in the order in which they are made, also when they are not awaited one by one.
Rule 3: a job changes its state only as `core.job.after` says, and has at most one outcome for ever.
"""

import sqlite3
from asyncio import Future
from pathlib import Path
from typing import Any

from rkllm_mqtt.core.job import Delivery, JobEvent, JobRecord
from rkllm_mqtt.store import admission, conversations, jobs, prefixes, upkeep
from rkllm_mqtt.store.admission import Admission, NewJob, Receipt
from rkllm_mqtt.store.ballast import Ballast
from rkllm_mqtt.store.clock import ClockSource, JournalClock, load_checkpoint
from rkllm_mqtt.store.conversations import (
    ConversationKey,
    ConversationLimits,
    ConversationShown,
    ConversationTurn,
)
from rkllm_mqtt.store.errors import StoreFull, from_sqlite
from rkllm_mqtt.store.jobs import Recovered
from rkllm_mqtt.store.known import KnownIds
from rkllm_mqtt.store.lock import JournalLock
from rkllm_mqtt.store.prefixes import PrefixRow
from rkllm_mqtt.store.schema import make_folder, open_database
from rkllm_mqtt.store.upkeep import Last
from rkllm_mqtt.store.writer import Writer

Payload = bytes
"""A payload as it goes over the wire; within `Journal` the built-in name means the size on disk."""


_CONVERSATIONS = ConversationLimits(conversations=500, turns=100, bytes=262_144, ttl_s=604_800)


class Journal:
    """Open it with `Journal.open`; all methods are for the thread of the loop that opened it.

    Methods return futures and begin at the call: cancelling the awaiting task does not undo a write.
    Every one may raise `StoreError`; what a single job does not allow is a `JobError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        ballast_mb: int,
        redelivery_window_s: float,
        conversations: ConversationLimits,
        tick_s: float,
        source: ClockSource,
    ) -> None:
        self.path = path
        self.meta: dict[str, str] = {}
        """Small facts by key; written by `set_meta` only."""
        self._window_s = redelivery_window_s
        self._conversations = conversations
        self._clock = JournalClock(source)
        self._lock = JournalLock(path)
        self._ballast = Ballast(Path(f"{path}.ballast"), ballast_mb << 20)
        self._writer = Writer(self._connect, self._lock.release, self._clock, self._ballast, tick_s=tick_s)
        self._known = KnownIds()
        self._known_anew: KnownIds | None = None
        """Is being filled, to take the place of the other."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        ballast_mb: int = 8,
        redelivery_window_s: float = 3600.0,
        conversations: ConversationLimits = _CONVERSATIONS,
        tick_s: float = 10.0,
        source: ClockSource | None = None,
    ) -> "Journal":
        """Open the journal at `path`, creating folder (0700) and file (0600), and lock it for us.

        Args:
            path: The database; `-wal`, `-shm`, `.lock` and `.ballast` stand beside it.
            ballast_mb: Space set aside for finals on a full disk; 0 sets none aside.
            redelivery_window_s: How long a receipt proves that a redelivered message is the same.
            conversations: How much of conversations is kept.
            tick_s: How often the clock is stored while jobs are unfinished, and a full disk is looked at.
            source: The machine's clocks.

        Raises:
            JournalInUse: Another daemon has it.
            StoreCorrupt, SchemaTooNew: The file is refused, and left alone.
            StoreFull, StoreError: The disk does not allow it.
        """
        journal = cls(
            path,
            ballast_mb=ballast_mb,
            redelivery_window_s=redelivery_window_s,
            conversations=conversations,
            tick_s=tick_s,
            source=source or ClockSource(),
        )
        await journal._writer.start()
        return journal

    async def close(self) -> None:
        """Carry out what was asked, store the clock, and let the next process in."""
        await self._writer.close()

    def now(self) -> float:
        """Return the journal clock in seconds: it never steps back, and goes on after a restart."""
        return self._clock.now()

    @property
    def full(self) -> bool:
        """The disk is full: finals may still fit, no new job is taken until space is back."""
        return self._writer.full

    @property
    def last_error(self) -> str:
        """Why the newest commit failed; empty when it did not."""
        return self._writer.last_error

    @property
    def healthy(self) -> bool:
        """The newest commit succeeded and new jobs are taken."""
        return not self._writer.full and not self._writer.last_error

    @property
    def commits(self) -> int:
        """Commits since the start; several calls share one."""
        return self._writer.commits

    @property
    def last_commit_ms(self) -> float:
        """Duration of the newest commit, its sync included."""
        return self._writer.last_commit_ms

    @property
    def bytes(self) -> int:
        """Size on disk of the database with its write-ahead log."""
        total = 0
        for file in (self.path, Path(f"{self.path}-wal")):
            try:
                total += file.stat().st_size
            except FileNotFoundError:
                continue
        return total

    @property
    def used_bytes(self) -> int:
        """Size of what is stored, as of the newest commit; the files may be larger and have room in them."""
        return self._writer.used_bytes

    def admit(self, new: NewJob, *, may_insert: bool, receipt: Receipt | None) -> Future[Admission]:
        """Return the job that is known by its id or receipt, else store `new` if `may_insert`.

        Raises:
            StoreFull: It would have been stored, but the space left is kept for finals.
        """

        def operation(connection: sqlite3.Connection) -> Admission:
            found = admission.admit(
                connection,
                new,
                receipt,
                may_insert=may_insert,
                now=self.now(),
                window_s=self._window_s,
            )
            if found.fresh and self._writer.full:
                raise StoreFull("the disk is full", "free some space; the daemon goes on by itself")
            return found

        if may_insert:
            for known in (self._known, self._known_anew):
                if known is not None:
                    known.add((new.target, new.client, new.id))
        return self._writer.submit(operation)

    def may_know(self, target: str, client: str, request_id: str) -> bool:
        """Return at once whether a job of this id may be stored, or is on its way there."""
        return self._known.may_hold((target, client, request_id))

    def find(self, target: str, client: str, request_id: str) -> Future[JobRecord | None]:
        """Return the job of this id, finished or not."""
        return self._writer.submit(lambda connection: jobs.find(connection, target, client, request_id))

    def record(self, seq: int) -> Future[JobRecord]:
        """Return job `seq`; `UnknownJob` after its retention."""
        return self._writer.submit(lambda connection: jobs.record(connection, seq))

    def readdress(self, seq: int, address: str) -> Future[bool]:
        """Replace where the answers of an unfinished job go; False, and no change, for a finished one."""
        return self._writer.submit(lambda connection: jobs.readdress(connection, seq, address))

    def claim(self, seq: int, attempt: int) -> Future[None]:
        """Note that run number `attempt` begins."""
        return self._writer.submit(lambda connection: jobs.claim(connection, seq, attempt))

    def requeue(self, seq: int, crashes: int, carried: str | None = None) -> Future[None]:
        """Put a running job back to waiting, with what its answer goes on with; None leaves that as it is."""
        return self._writer.submit(lambda connection: jobs.requeue(connection, seq, crashes, carried))

    def request_cancel(self, seq: int) -> Future[bool]:
        """Note a cancel so that it survives a crash; False when the outcome was stored first."""
        return self._writer.submit(lambda connection: jobs.request_cancel(connection, seq))

    def finish(
        self,
        seq: int,
        event: JobEvent,
        outcome: Payload,
        delivery: Delivery,
        turn: ConversationTurn | None = None,
    ) -> Future[None]:
        """Store the outcome, the end state and the time in one; `AlreadyFinished` keeps the first one.

        With them the turn that it adds to a conversation, or neither.
        """

        def operation(connection: sqlite3.Connection) -> None:
            jobs.finish(connection, seq, event, outcome, delivery, self.now())
            if turn is not None:
                conversations.append(connection, turn, self._conversations, now=self.now())

        return self._writer.submit(operation)

    def history(self, key: ConversationKey) -> Future[list[dict[str, Any]]]:
        """Return the messages that a conversation holds."""
        ttl_s = self._conversations.ttl_s
        return self._writer.submit(
            lambda connection: conversations.history(connection, key, now=self.now(), ttl_s=ttl_s)
        )

    def conversations(self, limit: int) -> Future[list[ConversationShown]]:
        """Return the kept conversations, the one used last first; nothing of their content."""
        return self._writer.submit(lambda connection: conversations.listing(connection, limit))

    def forget_conversation(self, key: ConversationKey) -> Future[bool]:
        """Remove a conversation; return whether there was one."""
        return self._writer.submit(lambda connection: conversations.forget(connection, key))

    def expire_conversations(self) -> Future[int]:
        """Remove the conversations that were not used for long; return how many."""
        ttl_s = self._conversations.ttl_s
        return self._writer.submit(
            lambda connection: conversations.expire(connection, now=self.now(), ttl_s=ttl_s)
        )

    def prefixes(self) -> Future[list[PrefixRow]]:
        """Return the registered prefixes, the one used last at the end."""
        return self._writer.submit(prefixes.all_of)

    def keep_prefix(self, row: PrefixRow) -> Future[None]:
        """Store a registered prefix in the place of that of the same name."""
        return self._writer.submit(lambda connection: prefixes.keep(connection, row))

    def note_prefix_use(self, client: str, name: str, uses: str) -> Future[None]:
        """Note that a prefix is used now; without effect when it is gone."""
        return self._writer.submit(
            lambda connection: prefixes.note_use(connection, client, name, self.now(), uses)
        )

    async def forget_prefix(self, client: str, name: str) -> bool:
        """Remove a prefix, overwritten like every removed prompt; return whether there was one."""
        found = await self._writer.submit(lambda connection: prefixes.forget(connection, client, name))
        self._writer.empty_log_soon()
        return found

    def delivered(self, seq: int, delivery: Delivery) -> Future[None]:
        """Note the broker's word on an outcome, DONE or REFUSED; `NotFinished` when there is none yet."""
        return self._writer.submit(lambda connection: jobs.set_delivery(connection, seq, delivery))

    def recover(self) -> Future[Recovered]:
        """Return the work and the outbox that an earlier run left; call it once, before anything runs."""
        return self._writer.submit(jobs.recover)

    async def purge(self, before: float, limit: int = 500) -> int:
        """Remove settled jobs that finished before `before` (journal clock); return how many.

        Each commit removes at most `limit`, and other calls get in between. The bytes are overwritten in
        the file; the log, which still has them, is emptied in the next idle moment.
        """
        total = 0
        while True:
            removed = await self._writer.submit(lambda connection: upkeep.purge(connection, before, limit))
            total += removed
            if removed:
                self._writer.empty_log_soon()
            if removed < limit:
                break
        if self._known.is_crowded:
            await self._renew_known()
        return total

    async def _renew_known(self) -> None:
        """Forget the ids of removed jobs; what is admitted meanwhile is noted in both filters."""
        self._known_anew = anew = KnownIds()
        try:
            for key in await self._writer.submit(upkeep.known_ids):
                anew.add(key)
            self._known = anew
        finally:
            self._known_anew = None

    def oldest(self) -> Future[float | None]:
        """Return when the settled job finished that `purge` removes next (journal clock)."""
        return self._writer.submit(upkeep.oldest)

    async def set_meta(self, key: str, value: str) -> None:
        """Store a small fact; `meta` shows it afterwards."""
        await self._writer.submit(lambda connection: upkeep.set_meta(connection, key, value))
        self.meta[key] = value

    def set_last(self, target: str, client: str, expires_at: float) -> Future[None]:
        """Note that this client's `last` topic is set until `expires_at` (journal clock)."""
        last = Last(target, client, expires_at)
        return self._writer.submit(lambda connection: upkeep.set_last(connection, last))

    def clear_last(self, target: str, client: str) -> Future[None]:
        """Note that this client's `last` topic is cleared."""
        return self._writer.submit(lambda connection: upkeep.clear_last(connection, target, client))

    def lasts(self) -> Future[list[Last]]:
        """Return the `last` topics that are set, the first to expire first."""
        return self._writer.submit(upkeep.lasts)

    def answer(self) -> Future[None]:
        """Write nothing; resolved when the writer's thread has come to it, which shows that it lives."""
        return self._writer.submit(lambda _connection: None)

    def counts(self) -> Future[dict[str, int]]:
        """Return the number of jobs in each state, and of `undelivered` outcomes."""
        return self._writer.submit(upkeep.counts)

    def _connect(self) -> sqlite3.Connection:
        """Lock and open everything, on the writer's thread."""
        make_folder(self.path.parent)
        self._lock.take()
        try:
            connection = open_database(self.path)
        except StoreFull:
            # The ballast that an earlier run left is there for this, too.
            self._ballast.release()
            connection = open_database(self.path)
        try:
            last = load_checkpoint(connection)
            if last is not None:
                self._clock.resume(last)
            self.meta.update(upkeep.load_meta(connection))
            self._known = KnownIds(upkeep.known_ids(connection))
        except sqlite3.Error as error:
            connection.close()
            raise from_sqlite(error, self.path) from error
        self._writer.full = not self._ballast.hold()
        return connection
