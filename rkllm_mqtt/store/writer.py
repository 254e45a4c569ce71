"""Group commit: one thread owns the connection and stores all that waits with a single sync.

Operations run in the order in which they were submitted. Each is alone in its savepoint, so one that
raises changes nothing and does not touch its neighbours; what they share is the commit. The futures of
a batch are resolved after the commit, in order, by one call into the loop.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence

from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.store.ballast import Ballast
from rkllm_mqtt.store.batch import Answer, Asked, Operation, T, commit, resolve
from rkllm_mqtt.store.clock import JournalClock, save_checkpoint
from rkllm_mqtt.store.errors import JournalClosed, StoreError, StoreFull, from_sqlite
from rkllm_mqtt.store.upkeep import used_bytes

BATCH = 256
"""Most operations in one commit: bounds the wait of the first and the work lost with a failed one."""

IDLE_CLOCK_S = 300.0
"""Longest time between two stored clock readings while no job is unfinished.

Then only retention depends on it, and a sync every few seconds would wear an eMMC for nothing.
"""

_IDLE_S = 0.25
_CHECKPOINT_COMMITS = 64
# So many commits (about 400 pages) are moved from the WAL into the database in the first idle moment,
# after their futures are resolved: a commit that waits for SQLite's own checkpoint costs two syncs more.

log = get_logger(__name__)


class Writer:
    """Owns the thread, its connection and the batches; everything public is for the loop's thread.

    Args:
        connect: Runs first on the thread; its connection is closed at the end.
        release: Runs last on the thread, also when `connect` failed.
        clock: Its reading is stored with every commit.
        ballast: Given up when a commit finds no space, taken back when there is some.
        tick_s: How often the clock is stored while jobs are unfinished, and a full disk is looked at.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        release: Callable[[], None],
        clock: JournalClock,
        ballast: Ballast,
        *,
        tick_s: float,
    ) -> None:
        self.full = False
        """No new job is to be accepted: the disk was full and its space is not back."""
        self.last_error = ""
        """Why the newest commit failed; empty after one that succeeded."""
        self.commits = 0
        """Commits that changed something, clock ticks excluded."""
        self.used_bytes = 0
        """Of the database, pages that are free to be written again excluded."""
        self.last_commit_ms = 0.0
        """From the start of the newest such transaction to the end of its sync."""
        self._connect = connect
        self._release = release
        self._clock = clock
        self._ballast = ballast
        self._tick_s = tick_s
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._syncs = True
        self._moved_at = 0
        self._log_holds_removed = False
        self._stored_clock_at = float("-inf")
        self._looked_at = float("-inf")
        # A daemon thread: a loop that dies without `close` must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    async def start(self) -> None:
        """Start the thread and wait until `connect` has returned; what it raises is raised here."""
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._stop()
            raise

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Return a future of the operation's result, resolved after it is on disk.

        The operation is queued by this call, not by awaiting; cancelling the future does not undo it.

        Raises (from the future):
            StoreError: Nothing of this operation is stored.
            Exception: What the operation itself raised; nothing of it is stored.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closing:
            future.set_exception(JournalClosed())
        else:
            self._asked.put(Asked(operation, future))
        return future

    def empty_log_soon(self) -> None:
        """Cut the write-ahead log in the next idle moment: it holds texts that were removed."""
        self._log_holds_removed = True

    async def close(self) -> None:
        """Carry out what was submitted, store the clock, close the connection and end the thread."""
        self._stop()
        await asyncio.shield(self._ended)
        self._thread.join()

    def _stop(self) -> None:
        if not self._closing:
            self._closing = True
            self._asked.put(None)

    def _run(self) -> None:
        """Be the thread: open, serve, close."""
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001 - it is raised in `start`
            self._release()
            self._answer([(self._opened, None, error)])
            return
        try:
            self._store_clock(connection)
            self._measure(connection)
            self._answer([(self._opened, None, None)])
            self._serve(connection)
            self._store_clock(connection)
            self._move_wal(connection, "TRUNCATE")
        finally:
            connection.close()
            self._release()
            self._answer([(self._ended, None, None)])

    def _serve(self, connection: sqlite3.Connection) -> None:
        """Answer batch after batch until `close`; do the upkeep that is due, and the slow one when idle."""
        going = True
        while going:
            batch, going = self._take()
            if self.full and time.monotonic() - self._looked_at >= self._tick_s:
                self._look_for_space()
            if batch:
                self._answer(self._store(connection, batch))
            elif self._log_holds_removed:
                self._log_holds_removed = not self._empty_log(connection)
            elif self.commits - self._moved_at >= _CHECKPOINT_COMMITS:
                self._move_wal(connection, "PASSIVE")
            if time.monotonic() - self._stored_clock_at >= self._tick_s and self._needs_clock(connection):
                self._store_clock(connection)

    def _take(self) -> tuple[list[Asked], bool]:
        """Return what waits, at most a batch and none after an idle time, and whether to go on."""
        batch: list[Asked] = []
        moving = self._log_holds_removed or self.commits - self._moved_at >= _CHECKPOINT_COMMITS
        timeout = _IDLE_S if moving else self._tick_s
        try:
            asked = self._asked.get(timeout=timeout)
            while asked is not None:
                batch.append(asked)
                if len(batch) == BATCH:
                    return batch, True
                asked = self._asked.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _answer(self, answers: Sequence[Answer]) -> None:
        # The loop may be gone when a process ends without `close`; what is stored stays stored.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(resolve, answers)

    def _store(self, connection: sqlite3.Connection, batch: Sequence[Asked]) -> list[Answer]:
        """Run and commit the batch, a second time if the ballast made room for it."""
        started = time.perf_counter()
        try:
            self._sync_again(connection)
            answers, has_changed = commit(connection, batch, self._clock.checkpoint)
        except sqlite3.Error as error:
            if self._made_room(connection, error):
                return self._store(connection, batch)
            self._failed(error)
            self._bury(connection, error)
            return [(asked.future, None, from_sqlite(error)) for asked in batch]
        except Exception as error:
            log.exception("journal_defect", operations=len(batch))
            return [
                (asked.future, None, StoreError(f"the journal failed ({type(error).__name__})"))
                for asked in batch
            ]
        if has_changed:
            self._stored_clock_at = time.monotonic()
            self.commits += 1
            self._measure(connection)
            self.last_commit_ms = (time.perf_counter() - started) * 1000
            self._succeeded()
        return answers

    def _measure(self, connection: sqlite3.Connection) -> None:
        # What was committed is told all the same when the disk cannot be read just now.
        with contextlib.suppress(sqlite3.Error):
            self.used_bytes = used_bytes(connection)

    def _bury(self, connection: sqlite3.Connection, error: sqlite3.Error) -> None:
        """Write over what a failed commit may have left in the log, before anybody hears that it failed.

        A commit whose sync fails is whole in the log: SQLite forgets it, but would find it there after a
        kill, and what was refused would be done after all. The next commit takes its place.
        """
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL):
            return
        # Where no sync succeeds at all, the bytes that a kill leaves behind are put right at least.
        for synchronous in ("FULL", "OFF"):
            with contextlib.suppress(sqlite3.Error):
                self._syncs = synchronous == "FULL"
                connection.execute(f"PRAGMA synchronous = {synchronous}")
                save_checkpoint(connection, self._clock.checkpoint())
                break

    def _sync_again(self, connection: sqlite3.Connection) -> None:
        """Let commits be synced as ever; before each one, for the disk may refuse even this."""
        if not self._syncs:
            connection.execute("PRAGMA synchronous = FULL")
            self._syncs = True

    def _failed(self, error: sqlite3.Error) -> None:
        if not self.last_error:
            log.error("journal_failed", error=str(error))
        self.last_error = str(from_sqlite(error))

    def _succeeded(self) -> None:
        if self.last_error:
            log.info("journal_recovered")
            self.last_error = ""

    def _made_room(self, connection: sqlite3.Connection, error: sqlite3.Error) -> bool:
        """Give up the ballast if `error` is the first of a full disk; say whether to try again."""
        if self.full or not isinstance(from_sqlite(error), StoreFull):
            return False
        self.full = True
        self._looked_at = time.monotonic()
        log.warning("journal_full", free_mb=self._ballast.free_bytes() >> 20)
        self._ballast.release()
        # What is moved into the database frees the log's own space to be written again.
        self._move_wal(connection, "PASSIVE")
        return True

    def _look_for_space(self) -> None:
        self._looked_at = time.monotonic()
        if self._ballast.regain():
            self.full = False
            log.info("journal_space_back", free_mb=self._ballast.free_bytes() >> 20)

    def _move_wal(self, connection: sqlite3.Connection, mode: str) -> bool:
        """Move the log into the database and return whether all of it went."""
        self._moved_at = self.commits
        # A reader or a full disk may stop it: the log then stays as it is, and nothing is lost.
        with contextlib.suppress(sqlite3.Error):
            (blocked, _, _) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            return not blocked
        return False

    def _empty_log(self, connection: sqlite3.Connection) -> bool:
        """Cut the log to nothing, unless a reader needs it: commits must not wait for a backup."""
        (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            return self._move_wal(connection, "TRUNCATE")
        finally:
            connection.execute(f"PRAGMA busy_timeout = {patience_ms}")

    def _needs_clock(self, connection: sqlite3.Connection) -> bool:
        if self.last_error or time.monotonic() - self._stored_clock_at >= IDLE_CLOCK_S:
            return True
        try:
            found = connection.execute("SELECT 1 FROM jobs WHERE finished_at IS NULL LIMIT 1").fetchone()
        except sqlite3.Error:
            return True
        return found is not None

    def _store_clock(self, connection: sqlite3.Connection) -> None:
        """Store the clock alone, which also shows whether a failing disk works again."""
        try:
            save_checkpoint(connection, self._clock.checkpoint())
        except sqlite3.Error as error:
            if not self._made_room(connection, error):
                self._failed(error)
        else:
            self._succeeded()
        self._stored_clock_at = time.monotonic()
