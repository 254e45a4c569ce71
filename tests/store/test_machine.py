"""The journal beside a model of it, for any order of calls, restarts and crashes."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from rkllm_mqtt.core.job import TRANSITIONS, Delivery, JobEvent, JobRecord, JobState, Priority, after
from rkllm_mqtt.store.admission import NewJob
from rkllm_mqtt.store.errors import AlreadyFinished
from rkllm_mqtt.store.jobs import ENDS
from rkllm_mqtt.store.journal import Journal

ENDING = st.sampled_from([event for (_, event), end in TRANSITIONS.items() if end in ENDS])


class JournalMachine(RuleBasedStateMachine):
    """Invariants: the journal equals a dict of records after every call, restart and crash; a refused
    call changes nothing; a job has at most one outcome and keeps it; numbers rise and are never reused.
    """

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="journal-"))
        self.lives = 0
        self.jobs: dict[int, JobRecord] = {}
        self.highest = 0

    @initialize()
    def first_open(self):
        self.journal = self.run(Journal.open(self.folder / "0" / "journal.db", ballast_mb=0))

    def teardown(self):
        if hasattr(self, "journal"):
            self.run(self.journal.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def run(self, awaitable):
        async def wait():
            return await awaitable

        return self.runner.run(wait())

    def call(self, method, *arguments, **keywords):
        async def make_and_wait():
            return await getattr(self.journal, method)(*arguments, **keywords)

        return self.runner.run(make_and_wait())

    def pick(self, draw):
        return self.jobs[sorted(self.jobs)[draw % len(self.jobs)]]

    @rule(
        client=st.sampled_from(["hall", "kitchen"]),
        name=st.sampled_from("abcd"),
        priority=st.sampled_from(Priority),
        may_insert=st.booleans(),
    )
    def admit(self, client, name, priority, may_insert):
        new = NewJob("rock", client, name, b"\0" * 32, priority, 1.5, None, "{}", "here")
        answer = self.call("admit", new, may_insert=may_insert, receipt=None)
        known = [job for job in self.jobs.values() if (job.client, job.id) == (client, name)]
        if known or not may_insert:
            assert not answer.fresh
            assert [answer.known] == (known or [None])
        else:
            assert answer.fresh
            assert answer.known.seq > self.highest
            self.highest = answer.known.seq
            self.jobs[self.highest] = answer.known

    @precondition(lambda self: self.jobs)
    @rule(draw=st.integers(0, 9))
    def claim(self, draw):
        job = self.pick(draw)
        self.move(job, JobEvent.CLAIMED, "claim", job.attempt + 1, attempt=job.attempt + 1)

    @precondition(lambda self: self.jobs)
    @rule(draw=st.integers(0, 9))
    def requeue(self, draw):
        job = self.pick(draw)
        self.move(job, JobEvent.REQUEUED, "requeue", job.crashes + 1, crashes=job.crashes + 1)

    def move(self, job, event, method, argument, **changes):
        if (job.state, event) in TRANSITIONS:
            self.call(method, job.seq, argument)
            self.jobs[job.seq] = replace(job, state=after(job.state, event), **changes)
        else:
            with pytest.raises(Exception, match="cannot happen"):
                self.call(method, job.seq, argument)

    @precondition(lambda self: self.jobs)
    @rule(
        draw=st.integers(0, 9),
        event=ENDING,
        outcome=st.binary(max_size=20),
        delivery=st.sampled_from([Delivery.NONE, Delivery.PENDING]),
    )
    def finish(self, draw, event, outcome, delivery):
        job = self.pick(draw)
        if job.state in ENDS:
            with pytest.raises(AlreadyFinished):
                self.call("finish", job.seq, event, outcome, delivery)
        elif (job.state, event) in TRANSITIONS:
            self.call("finish", job.seq, event, outcome, delivery)
            self.jobs[job.seq] = replace(
                job, state=after(job.state, event), outcome=outcome, delivery=delivery
            )
        else:
            with pytest.raises(Exception, match="cannot happen"):
                self.call("finish", job.seq, event, outcome, delivery)

    @precondition(lambda self: self.jobs)
    @rule(draw=st.integers(0, 9), address=st.sampled_from(["here", "there"]))
    def readdress_and_cancel(self, draw, address):
        job = self.pick(draw)
        is_open = job.state not in ENDS
        assert self.call("readdress", job.seq, address) == is_open
        assert self.call("request_cancel", job.seq) == is_open
        if is_open:
            self.jobs[job.seq] = replace(job, address=address, cancel_requested=True)

    @precondition(lambda self: any(job.state in ENDS for job in self.jobs.values()))
    @rule(draw=st.integers(0, 9), delivery=st.sampled_from([Delivery.DONE, Delivery.REFUSED]))
    def deliver(self, draw, delivery):
        ended = [job for _, job in sorted(self.jobs.items()) if job.state in ENDS]
        job = ended[draw % len(ended)]
        self.call("delivered", job.seq, delivery)
        self.jobs[job.seq] = replace(job, delivery=delivery)

    @rule()
    def purge(self):
        settled = [
            seq
            for seq, job in self.jobs.items()
            if job.state in ENDS and job.delivery is not Delivery.PENDING
        ]
        assert self.call("purge", self.journal.now() + 1.0, limit=2) == len(settled)
        for seq in settled:
            del self.jobs[seq]

    @rule(in_order=st.booleans())
    def reopen(self, in_order):
        """Close in order, or open what a kill at this moment would leave."""
        self.lives += 1
        path = self.folder / str(self.lives) / "journal.db"
        clock = self.journal.now()
        old = self.journal.path
        if in_order:
            self.run(self.journal.close())
        path.parent.mkdir()
        for suffix in ("", "-wal"):
            if Path(f"{old}{suffix}").exists():
                shutil.copy(f"{old}{suffix}", f"{path}{suffix}")
        if not in_order:
            self.run(self.journal.close())
        self.journal = self.run(Journal.open(path, ballast_mb=0))
        # Of a crash the clock may know only its last commit, but the machine's own count goes on.
        assert self.journal.now() >= clock
        recovered = self.call("recover")
        self.jobs = {
            seq: replace(job, state=JobState.WAITING) if job.state is JobState.RUNNING else job
            for seq, job in self.jobs.items()
        }
        assert recovered.waiting == [job for _, job in sorted(self.jobs.items()) if job.state not in ENDS]
        assert recovered.undelivered == sorted(
            seq for seq, job in self.jobs.items() if job.delivery is Delivery.PENDING
        )

    @invariant()
    def equals_the_model(self):
        if not hasattr(self, "journal"):
            return

        async def read():
            return await asyncio.gather(*(self.journal.record(seq) for seq in self.jobs))

        assert dict(zip(self.jobs, self.runner.run(read()), strict=True)) == self.jobs
        counts = self.call("counts")
        assert sum(counts.values()) - counts["undelivered"] == len(self.jobs)


JournalMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestJournalMachine = JournalMachine.TestCase
