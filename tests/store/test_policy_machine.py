"""Policy, waiting jobs and journal together, for any order of work and a power cut at any point."""

import asyncio
import shutil
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from live_jobs import address, request

from rkllm_mqtt.core.job import TRANSITIONS, Delivery, JobEvent, JobState, Priority, after
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.verdict import Retry, after_slot_lost
from rkllm_mqtt.recovery import revive
from rkllm_mqtt.store.admission import NewJob
from rkllm_mqtt.store.jobs import ENDS
from rkllm_mqtt.store.journal import Journal

MAX_ATTEMPTS = 2
OUTCOMES = (b"short", b"x" * 30_000)
"""The long one does not fit the small page cache: part of the commit is in the log before it is whole."""
LEGAL = {(None, "waiting")} | {(state.value, after.value) for (state, _), after in TRANSITIONS.items()}
WORK = st.tuples(
    st.sampled_from(
        ["submit", "submit", "start", "start", "complete", "lose", "preempt", "cancel", "expire", "deliver"]
    ),
    st.integers(0, 9),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What the journal must hold of a job."""

    priority: Priority
    state: JobState = JobState.WAITING
    attempt: int = 0
    crashes: int = 0
    outcome: bytes | None = None
    delivery: Delivery = Delivery.NONE


class PolicyMachine(RuleBasedStateMachine):
    """Invariants: at most one job runs; the waiting jobs in memory are those on disk; nothing idles while
    a job waits; a state changes only as the table says; an outcome never changes; a commit is there whole
    or not at all; after a power cut exactly what was acknowledged is there, and work goes on.
    """

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="journal-"))
        self.lives = 0
        self.now = 0.0
        self.rows: dict[int, Row] = {}
        self.live = LiveJobs()
        self.seen: dict[int, str | None] = {}
        self.outcomes: dict[int, bytes] = {}

    @initialize()
    def begin(self):
        self.open(self.folder / "0.db")

    def teardown(self):
        self.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    def close(self):
        if hasattr(self, "journal"):
            self.runner.run(self.journal.close())

    def open(self, path):
        self.journal = self.runner.run(Journal.open(path, ballast_mb=0))
        self.sql("PRAGMA cache_size = 5")
        self.sql("CREATE TEMP TABLE moves (seq, before, after)")
        self.sql(
            "CREATE TEMP TRIGGER born AFTER INSERT ON main.jobs BEGIN"
            " INSERT INTO moves VALUES (NEW.seq, NULL, NEW.state); END"
        )
        self.sql(
            "CREATE TEMP TRIGGER moved AFTER UPDATE OF state ON main.jobs BEGIN"
            " INSERT INTO moves VALUES (NEW.seq, OLD.state, NEW.state); END"
        )

    def sql(self, statement):
        async def run():
            return await self.journal._writer.submit(lambda c: c.execute(statement).fetchall())

        return self.runner.run(run())

    def begin_work(self, work, number):
        """Decide as the daemon does, change memory, and begin the call; None when there is nothing to do."""
        running = next((seq for seq, row in self.rows.items() if row.state is JobState.RUNNING), None)
        if work == "submit":
            return self.submit(number)
        if work == "start":
            return self.start() if running is None else None
        if work in ("complete", "lose", "preempt"):
            return None if running is None else getattr(self, work)(running, OUTCOMES[number % 2])
        if work == "deliver":
            seqs = [seq for seq, row in self.rows.items() if row.state in ENDS]
        else:  # a job whose commit is under way is not known yet
            seqs = [seq for seq in self.rows if self.live.by_seq(seq) is not None]
        if not seqs:
            return None
        seq = seqs[number % len(seqs)]
        if work == "deliver":
            self.rows[seq] = replace(self.rows[seq], delivery=Delivery.DONE)
            return self.journal.delivered(seq, Delivery.DONE)
        event = JobEvent.CANCEL_CONFIRMED if work == "cancel" else JobEvent.DEADLINE_PASSED
        return self.end(seq, event, OUTCOMES[number % 2])

    def submit(self, number):
        seq = max(self.rows, default=0) + 1
        priority = list(Priority)[number % 3]
        self.rows[seq] = Row(priority)
        where = address(f"c{number % 2}", f"q{seq}")
        body = request().to_json()
        new = NewJob("rock", where.mailbox.client, f"q{seq}", b"", priority, 1.5, None, body, where.to_json())

        async def admit():
            record = (await self.journal.admit(new, may_insert=True, receipt=None)).known
            assert record.seq == seq
            self.live.add(revive(record, 1, 0.0))

        return admit()

    def start(self):
        job = self.live.policy.choose(self.tick())
        assert (job is None) == (len(self.live.waiting) == 0)
        if job is None:
            return None
        row = self.rows[job.seq]
        assert row.state is JobState.WAITING
        assert row.crashes < MAX_ATTEMPTS
        self.live.policy.claim(job, 1.0, self.now)
        self.live.take(job)
        self.live.policy.begin(job, self.now)
        self.rows[job.seq] = replace(row, state=JobState.RUNNING, attempt=row.attempt + 1)
        return self.journal.claim(job.seq, row.attempt + 1)

    def tick(self):
        self.now += 1.0
        return self.now

    def leave_slot(self, seq):
        job = self.live.by_seq(seq)
        if job in self.live.in_slot:
            self.live.policy.settle(job, 1.5, self.tick())
        return job

    def complete(self, seq, outcome):
        return self.end(seq, JobEvent.COMPLETED, outcome)

    def lose(self, seq, outcome):
        row = self.rows[seq]
        if not isinstance(after_slot_lost(row.crashes + 1, MAX_ATTEMPTS, "killed"), Retry):
            return self.end(seq, JobEvent.GAVE_UP, outcome)
        self.live.put_back(self.leave_slot(seq))
        self.rows[seq] = replace(row, state=JobState.WAITING, crashes=row.crashes + 1)
        return self.journal.requeue(seq, row.crashes + 1)

    def preempt(self, seq, _):
        """Something of a higher class waits, or the running class has had its share."""
        if not self.live.policy.should_preempt(99, self.tick()):
            return None
        row = self.rows[seq]
        self.live.put_back(self.leave_slot(seq))
        self.rows[seq] = replace(row, state=JobState.WAITING)
        return self.journal.requeue(seq, row.crashes)

    def end(self, seq, event, outcome):
        row = self.rows[seq]
        self.live.forget(self.leave_slot(seq))
        self.rows[seq] = replace(
            row, state=after(row.state, event), outcome=outcome, delivery=Delivery.PENDING
        )
        return self.journal.finish(seq, event, outcome, Delivery.PENDING)

    def together(self, works, *, copy_after=0):
        """Let all be one commit; return what the disk held within it, after so many of its operations."""
        going, begun, copies = threading.Event(), threading.Event(), []

        def hold(_):
            begun.set()
            going.wait()

        async def run():
            first = self.journal._writer.submit(hold)
            begun.wait()  # it is alone in its commit now, and all that follows shares the next one
            asked = []
            try:
                for number, work in enumerate(works):
                    if number == copy_after:
                        asked.append(self.journal._writer.submit(lambda _: copies.append(self.files())))
                    call = self.begin_work(*work)
                    if call is not None:
                        asked.append(asyncio.ensure_future(call))
                        await asyncio.sleep(0)
            finally:
                going.set()
            await asyncio.gather(first, *asked)

        self.runner.run(run())
        return copies[0]

    def files(self):
        path = self.journal.path
        log = Path(f"{path}-wal")
        return path.read_bytes(), log.read_bytes() if log.exists() else b""

    @rule(work=WORK)
    def do(self, work):
        async def run():
            call = self.begin_work(*work)
            if call is not None:
                await call

        self.runner.run(run())

    @rule(
        works=st.lists(WORK, min_size=1, max_size=5),
        within=st.integers(0, 4),
        cut=st.sampled_from(["within", "torn", "after"]),
        share=st.floats(0.0, 1.0),
    )
    def do_together_and_lose_power(self, works, within, cut, share):
        rows, (_, log_before) = dict(self.rows), self.files()
        middle = self.together(works, copy_after=min(within, len(works) - 1))
        database, log = left = self.files()
        if cut == "within":
            self.reopen(middle, [rows])
        elif cut == "after":
            self.reopen(left, [self.rows])
        elif log[:32] == log_before[:32] and len(log) > len(log_before):
            end = len(log_before) + int(share * (len(log) - len(log_before)))
            self.reopen((database, log[:end]), [rows, self.rows])

    @rule()
    def lose_power(self):
        self.reopen(self.files(), [self.rows])

    @precondition(lambda self: self.rows)
    @rule()
    def close_and_open(self):
        path = self.journal.path
        self.close()
        self.reopen((path.read_bytes(), b""), [self.rows], closed=True)

    def reopen(self, files, possible, *, closed=False):
        """Go on with what is left on the disk; it must be one of the `possible` contents."""
        if not closed:
            self.check_moves()
            self.close()
        self.lives += 1
        path = self.folder / f"{self.lives}.db"
        path.write_bytes(files[0])
        Path(f"{path}-wal").write_bytes(files[1])
        self.open(path)
        found = self.stored()
        assert found in possible
        self.seen = {seq: row.state.value for seq, row in found.items()}
        self.outcomes = {seq: row.outcome for seq, row in found.items() if row.outcome is not None}
        self.rows = {
            seq: replace(row, state=JobState.WAITING) if row.state is JobState.RUNNING else row
            for seq, row in found.items()
        }

        async def recover():
            return await self.journal.recover()

        recovered = self.runner.run(recover())
        self.live = LiveJobs()
        for record in recovered.waiting:
            self.live.add(revive(record, self.lives, 0.0))
        pending = [seq for seq, row in self.rows.items() if row.delivery is Delivery.PENDING]
        assert recovered.undelivered == pending

    def stored(self):
        rows = self.sql(
            "SELECT jobs.seq, priority, state, attempt, crashes, outcome, delivery FROM jobs"
            " LEFT JOIN outcomes ON outcomes.seq = jobs.seq ORDER BY jobs.seq"
        )
        return {
            row[0]: Row(
                Priority[row[1].upper()], JobState(row[2]), row[3], row[4], row[5], Delivery[row[6].upper()]
            )
            for row in rows
        }

    def check_moves(self):
        for seq, before, now in self.sql("SELECT seq, before, after FROM moves ORDER BY rowid"):
            assert (before, now) in LEGAL
            assert self.seen.get(seq) == before
            self.seen[seq] = now
        self.sql("DELETE FROM moves")

    @invariant()
    def holds(self):
        if not hasattr(self, "journal"):
            return
        self.check_moves()
        stored = self.stored()
        assert stored == self.rows
        assert [row.state for row in stored.values()].count(JobState.RUNNING) <= 1
        waiting = {seq for seq, row in stored.items() if row.state is JobState.WAITING}
        assert {job.seq for job in self.live.waiting} == waiting
        assert self.live.count == len([row for row in stored.values() if row.state not in ENDS])
        for seq, outcome in self.outcomes.items():
            assert stored[seq].outcome == outcome
        self.outcomes = {seq: row.outcome for seq, row in stored.items() if row.outcome is not None}


PolicyMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=20)
TestPolicyMachine = PolicyMachine.TestCase
