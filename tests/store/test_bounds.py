"""The journal's files stay in proportion to what it keeps, however many jobs go through it."""

import asyncio

from rkllm_mqtt.core.job import Delivery, JobEvent

PAGE = 4096
WAL_BOUND = (2000 + 700) * (PAGE + 24)
"""SQLite's own checkpoint begins at 2,000 pages; beyond it comes one commit at most."""


def wal_bytes(journal):
    log = journal.path.with_name("journal.db-wal")
    return log.stat().st_size if log.exists() else 0


async def live(journal, new_job, names, request):
    """Let jobs be accepted, run and answered, as many at once as there are names."""
    asked = [journal.admit(new_job(name, request=request), may_insert=True, receipt=None) for name in names]
    for admission in await asyncio.gather(*asked):
        seq = admission.known.seq
        journal.claim(seq, 1)
        last = journal.finish(seq, JobEvent.COMPLETED, b"an answer " * 100, Delivery.NONE)
    await last


async def test_ten_times_the_kept_jobs_go_through_without_the_files_growing(opened, new_job):
    async with opened() as journal:
        finished_at, files, logs = [], [], []
        for turn in range(60):
            await live(journal, new_job, [f"{turn}-{n}" for n in range(50)], "x" * 4000)
            finished_at.append(journal.now())
            if turn >= 5:  # the newest 300 jobs are kept
                await journal.purge(finished_at[turn - 5])
            files.append(journal.path.stat().st_size)
            logs.append(wal_bytes(journal))
        counts = await journal.counts()
        used = journal.used_bytes
    assert counts["succeeded"] < 350
    kept = counts["succeeded"] * (4000 + 1000)
    assert max(logs) < WAL_BOUND
    assert max(files) < 2 * kept + 256 * PAGE + (1 << 20), (files, kept)
    assert used < 2 * kept + (1 << 20)


async def test_after_a_burst_the_files_shrink_to_what_is_kept(opened, new_job):
    async with opened() as journal:
        for turn in range(8):
            await live(journal, new_job, [f"{turn}-{n}" for n in range(200)], "x" * 12_000)
        await journal.purge(journal.now() + 1.0)
        purges = 0
        while journal.used_bytes > 1 << 20 or journal.path.stat().st_size > 4 << 20:
            await journal.purge(journal.now() + 1.0)
            await live(journal, new_job, [f"later-{purges}-{n}" for n in range(20)], "short")
            purges += 1
            assert purges < 100, (journal.used_bytes, journal.path.stat().st_size, wal_bytes(journal))
        assert wal_bytes(journal) < WAL_BOUND
        assert journal.bytes == journal.path.stat().st_size + wal_bytes(journal)
