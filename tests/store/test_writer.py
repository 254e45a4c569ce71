"""Group commit: what waits together is stored together, in order, and failures of the disk are survived."""

import asyncio
import resource
import threading

import pytest

from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.writer import BATCH


@pytest.fixture
def held():
    """Hold the writer's thread in a batch of its own, so that everything after it waits together."""

    async def hold(journal):
        gate, entered = threading.Event(), threading.Event()

        def wait(connection):
            entered.set()
            return gate.wait(30)

        journal._writer.submit(wait)
        assert await asyncio.to_thread(entered.wait, 30)
        return gate

    return hold


async def test_what_waits_together_is_one_commit_up_to_the_bound(opened, new_job, held):
    async with opened() as journal:
        gate = await held(journal)
        asked = [journal.admit(new_job(f"{n}"), may_insert=True, receipt=None) for n in range(3 * BATCH)]
        gate.set()
        await asyncio.gather(*asked)
        assert journal.commits == 3
        assert journal.last_commit_ms > 0.0


async def test_futures_are_resolved_in_the_order_of_the_calls(opened, new_job, held):
    async with opened() as journal:
        gate = await held(journal)
        order = []
        asked = []
        for n in range(600):
            future = journal.admit(new_job(f"{n}"), may_insert=True, receipt=None)
            future.add_done_callback(lambda _, n=n: order.append(n))
            asked.append(future)
        gate.set()
        admissions = await asyncio.gather(*asked)
    assert order == list(range(600))
    assert [a.known.seq for a in admissions] == sorted(a.known.seq for a in admissions)


async def test_a_read_does_not_sync(opened, new_job):
    async with opened() as journal:
        await journal.admit(new_job("a"), may_insert=True, receipt=None)
        commits = journal.commits
        await journal.find("rock", "kitchen", "a")
        await journal.counts()
        assert journal.commits == commits


async def test_a_commit_that_the_disk_refuses_fails_whole_and_the_next_one_succeeds(opened, new_job, held):
    """A file size limit of the process makes a true I/O error in the middle of the log."""
    async with opened(tick_s=60.0) as journal:
        await journal.admit(new_job("before"), may_insert=True, receipt=None)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        gate = await held(journal)
        asked = [journal.admit(new_job(f"{n}"), may_insert=True, receipt=None) for n in range(50)]
        asked.append(journal.find("rock", "kitchen", "before"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.bytes - journal.path.stat().st_size + 5000, hard))
        try:
            gate.set()
            answers = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {type(answer) for answer in answers} == {StoreError}
        assert not journal.healthy
        assert "IOERR" in journal.last_error
        assert (await journal.counts())["waiting"] == 1
        assert (await journal.admit(new_job("0"), may_insert=True, receipt=None)).fresh
        assert journal.healthy
        assert journal.last_error == ""


async def test_the_clock_is_stored_while_a_job_waits_and_nothing_else_happens(opened, new_job):
    async with opened(tick_s=0.01) as journal:
        await journal.admit(new_job("a"), may_insert=True, receipt=None)
        question = "SELECT journal_s FROM clock"
        (first,) = await journal._writer.submit(lambda c: c.execute(question).fetchone())
        async with asyncio.timeout(30):
            while (await journal._writer.submit(lambda c: c.execute(question).fetchone())) == (first,):
                pass


async def test_a_defect_in_an_operation_is_raised_to_its_caller_alone(opened):
    async with opened() as journal:
        with pytest.raises(ZeroDivisionError):
            await journal._writer.submit(lambda connection: 1 // 0)
        assert (await journal.counts())["waiting"] == 0
        assert journal.healthy


async def test_cancelling_open_lets_go_of_the_journal(opened):
    opening = asyncio.ensure_future(opened().__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    for thread in threading.enumerate():
        if thread.name == "journal":
            await asyncio.to_thread(thread.join, 30)
            assert not thread.is_alive()
    async with opened() as journal:
        assert journal.healthy
