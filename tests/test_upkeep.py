"""The promise of `upkeep.py`: what need not be known any more is forgotten, again and again."""

import asyncio

import pytest
from live_jobs import admit, make_job, opened
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.store.clock import ClockSource
from rkllm_mqtt.upkeep import Upkeep


async def finish(journal, job, delivery):
    await journal.claim(job.seq, 1)
    await journal.finish(job.seq, JobEvent.COMPLETED, b"{}", Delivery.PENDING)
    if delivery is not Delivery.PENDING:
        await journal.delivered(job.seq, delivery)


@in_virtual_time
async def test_delivered_jobs_are_forgotten_after_their_retention_and_others_stay(tmp_path):
    loop = asyncio.get_running_loop()
    async with opened(tmp_path, source=ClockSource(uptime_s=loop.time)) as journal:
        jobs = {name: await admit(journal, make_job(id=name)) for name in ("old", "waits", "unsent")}
        await finish(journal, jobs["old"], Delivery.DONE)
        await finish(journal, jobs["unsent"], Delivery.PENDING)
        upkeep = asyncio.create_task(Upkeep(journal, 1000.0).run())

        async def known():
            return {name for name in jobs if await journal.find("rock", "app", name)}

        await asyncio.sleep(900)
        assert await known() == {"old", "waits", "unsent"}
        fresh = await admit(journal, make_job(id="fresh"))
        jobs["fresh"] = fresh
        await finish(journal, fresh, Delivery.DONE)
        await asyncio.sleep(200)
        assert await known() == {"waits", "unsent", "fresh"}
        upkeep.cancel()
        await asyncio.wait({upkeep})


@in_virtual_time
async def test_a_journal_that_cannot_purge_is_asked_again(tmp_path, caplog):
    async with opened(tmp_path) as journal:
        pass
    upkeep = asyncio.create_task(Upkeep(journal, 10.0, every_s=1.0).run())
    await asyncio.sleep(5)
    assert not upkeep.done()
    upkeep.cancel()
    await asyncio.wait({upkeep})


@in_virtual_time
async def test_it_knows_when_there_will_be_room(tmp_path):
    clock = [100.0]
    async with opened(tmp_path, source=ClockSource(uptime_s=lambda: clock[0])) as journal:
        upkeep = Upkeep(journal, 1000.0, every_s=60.0)
        assert upkeep.frees_in_s == 1000.0
        job = await admit(journal, make_job())
        await finish(journal, job, Delivery.DONE)
        clock[0] += 400
        await upkeep.purge()
        # Its retention, and the longest wait for the next look.
        assert upkeep.frees_in_s == pytest.approx(660)
        clock[0] += 600.1
        await upkeep.purge()
        assert await journal.find("rock", "app", job.id) is None
        assert upkeep.frees_in_s == 1000.0
