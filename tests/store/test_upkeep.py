"""Retention, counts and the small facts beside the jobs."""

import asyncio
import sqlite3

import pytest

from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.store.errors import UnknownJob
from rkllm_mqtt.store.upkeep import Last


async def test_find_knows_finished_jobs_until_they_are_purged(opened, new_job, finished):
    async with opened() as journal:
        seq = await finished(journal, new_job("a"), Delivery.NONE)
        assert (await journal.find("rock", "kitchen", "a")).outcome == b"done"
        await journal.purge(journal.now() + 1)
        assert await journal.find("rock", "kitchen", "a") is None
        with pytest.raises(UnknownJob):
            await journal.record(seq)


async def test_purge_keeps_what_is_young_unfinished_or_undelivered(opened, new_job, admitted, finished):
    async with opened() as journal:
        old = [await finished(journal, new_job(f"old{n}"), Delivery.NONE) for n in range(7)]
        pending = await finished(journal, new_job("pending"))
        waiting = await admitted(journal, new_job("waiting"))
        before = journal.now()
        young = await finished(journal, new_job("young"), Delivery.NONE)
        commits = journal.commits
        assert await journal.purge(before, limit=3) == len(old)
        assert journal.commits == commits + 3
        for seq in (pending, waiting.seq, young):
            await journal.record(seq)
        for seq in old:
            with pytest.raises(UnknownJob):
                await journal.record(seq)


async def test_a_purge_takes_the_receipt_and_the_texts_with_it_and_gives_space_back(
    opened, new_job, new_receipt
):
    async with opened() as journal:
        long = "x" * 40_000
        for n in range(100):
            new = new_job(f"g{n}", request=long)
            await journal.admit(new, may_insert=True, receipt=new_receipt(mid=n + 1, redelivered=False))
        for job in (await journal.recover()).waiting:
            await journal.finish(job.seq, JobEvent.GAVE_UP, long.encode(), Delivery.NONE)
    big = journal.path.stat().st_size
    async with opened() as journal:
        for limit in (30, 500):
            await journal.purge(journal.now() + 1, limit=limit)
        for _ in range(10):
            await journal.purge(journal.now() + 1)
        tables = await journal._writer.submit(
            lambda c: [c.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("requests", "outcomes")]
        )
        again = await journal.admit(new_job("new"), may_insert=True, receipt=new_receipt(mid=1))
    assert tables == [0, 0]
    assert again.fresh
    assert journal.path.stat().st_size < big / 3


async def test_small_facts_and_last_topics_survive_a_restart(opened):
    async with opened() as journal:
        assert journal.meta == {}
        await journal.set_meta("uid", "old")
        await journal.set_meta("uid", "7f3a")
        await journal.set_last("rock", "kitchen", 50.0)
        await journal.set_last("rock", "hall", 20.0)
        await journal.set_last("rock", "kitchen", 10.0)
    async with opened() as journal:
        assert journal.meta == {"uid": "7f3a"}
        assert await journal.lasts() == [Last("rock", "kitchen", 10.0), Last("rock", "hall", 20.0)]
        await journal.clear_last("rock", "kitchen")
        await journal.clear_last("rock", "nobody")
        assert await journal.lasts() == [Last("rock", "hall", 20.0)]


async def test_counts_name_every_state_and_the_outbox(opened, new_job, admitted, finished):
    async with opened() as journal:
        await admitted(journal, new_job("a"))
        await journal.claim((await admitted(journal, new_job("b"))).seq, 1)
        await finished(journal, new_job("c"))
        await finished(journal, new_job("d"), Delivery.NONE)
        counts = await journal.counts()
    assert counts == {
        "waiting": 1,
        "running": 1,
        "succeeded": 2,
        "failed": 0,
        "cancelled": 0,
        "expired": 0,
        "undelivered": 1,
    }


async def test_ten_thousand_waiting_jobs_are_found_by_the_indexes(opened, new_job):
    """Speed without a clock: none of the frequent questions reads the whole table."""
    questions = {
        "SELECT seq FROM jobs WHERE finished_at IS NULL ORDER BY seq": "jobs_unfinished",
        "SELECT state, count(*) FROM jobs WHERE finished_at IS NULL GROUP BY state": "jobs_unfinished",
        "SELECT seq FROM jobs WHERE delivery = 'pending' ORDER BY seq": "jobs_undelivered",
        "SELECT seq FROM jobs WHERE finished_at IS NOT NULL AND delivery <> 'pending'"
        " AND finished_at < 1 ORDER BY finished_at LIMIT 5": "jobs_settled",
        "SELECT seq FROM jobs WHERE target = '' AND client = '' AND id = ''": "jobs_by_id",
        "SELECT seq FROM receipts WHERE session = '' AND mid = 1": "receipts_by_mid",
    }
    async with opened() as journal:
        for question, index in questions.items():
            plan = await journal._writer.submit(
                lambda c, q=question: str(c.execute(f"EXPLAIN QUERY PLAN {q}").fetchall())
            )
            assert index in plan, question
        await asyncio.gather(
            *(journal.admit(new_job(f"{n}"), may_insert=True, receipt=None) for n in range(10_000))
        )
        waiting = (await journal.recover()).waiting
    assert [job.id for job in waiting] == [f"{n}" for n in range(10_000)]


async def eventually(condition):
    """Wait for what the journal's thread does by itself when it is idle."""
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


async def test_the_bytes_of_removed_texts_are_gone_from_every_file_while_the_journal_is_open(
    opened, new_job, finished
):
    short, long = (
        "told-in-confidence-",
        "and-at-length-" * 4000,
    )  # within a page of others, on pages of its own

    def holding(journal, secret):
        files = sorted(journal.path.parent.iterdir())
        return [file.name for file in files if secret.encode() in file.read_bytes()]

    async with opened() as journal:
        for n in range(3):
            kept = await finished(journal, new_job(f"kept{n}", request='{"text":"stays"}'), Delivery.NONE)
        seqs = [
            await finished(journal, new_job(text[:3], request=text), Delivery.NONE) for text in (short, long)
        ]
        for secret in (short, long[:100]):
            assert "journal.db-wal" in holding(journal, secret)
        await journal.purge(journal.now())
        await eventually(lambda: not holding(journal, short) + holding(journal, long[:100]))
        for seq in seqs:
            with pytest.raises(UnknownJob):
                await journal.record(seq)
        assert journal.path.stat().st_size > 0
        assert kept


async def test_a_reader_delays_the_emptying_of_the_log_and_no_commit(opened, new_job, finished):
    async with opened() as journal:
        await finished(journal, new_job("a", request="secret-a"), Delivery.NONE)
        reader = sqlite3.connect(journal.path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchone()
        await journal.purge(journal.now())
        log = journal.path.with_name("journal.db-wal")
        for n in range(3):
            async with asyncio.timeout(1.5):  # less than the patience with other writers
                await finished(journal, new_job(f"b{n}"), Delivery.NONE)
        assert log.stat().st_size
        reader.close()
        await eventually(lambda: not log.stat().st_size)
