"""The promise of `deadlines.py`: each deadline is called once, in time; finished jobs take no memory."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from live_jobs import make_job
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.deadlines import Deadlines


class Watched:
    """Deadlines on the clock of the loop, and when each job was called."""

    def __init__(self):
        self.live, self.called = LiveJobs(), {}
        loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.live, loop.time, lambda job: self.called.update({job: loop.time()}))

    def add(self, deadline):
        job = make_job(deadline=deadline)
        self.live.add(job)
        self.deadlines.watch(job)
        return job


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1e6), max_size=20), st.sets(st.integers(0, 19)))
def test_unfinished_jobs_are_called_at_their_deadline_and_finished_ones_never(times, finished):
    @in_virtual_time
    async def scenario():
        watched = Watched()
        jobs = [watched.add(time) for time in times]
        for index in finished & set(range(len(jobs))):
            watched.live.forget(jobs[index])
        await asyncio.sleep(2e6)
        expected = {job for index, job in enumerate(jobs) if index not in finished}
        assert set(watched.called) == expected
        assert all(0 <= at - job.deadline < 0.01 for job, at in watched.called.items())
        watched.deadlines.close()

    scenario()


@in_virtual_time
async def test_a_deadline_that_has_passed_already_is_called_at_once():
    watched = Watched()
    await asyncio.sleep(10)
    job = watched.add(3)
    await asyncio.sleep(0.001)
    assert job in watched.called


@in_virtual_time
async def test_an_absurd_deadline_breaks_nothing():
    watched = Watched()
    far, never = watched.add(1e15), watched.add(float("inf"))
    soon = watched.add(200_000)
    await asyncio.sleep(300_000)
    assert list(watched.called) == [soon]
    assert far not in watched.called
    assert never not in watched.called
    watched.deadlines.close()


@in_virtual_time
async def test_finished_jobs_take_no_memory():
    watched = Watched()
    kept = watched.add(80_000)
    for _ in range(20_000):
        watched.live.forget(watched.add(70_000))
    assert len(watched.deadlines._heap) < 2_100
    await asyncio.sleep(90_000)
    assert list(watched.called) == [kept]


@in_virtual_time
async def test_nothing_is_called_after_the_close():
    watched = Watched()
    watched.add(5)
    watched.deadlines.close()
    await asyncio.sleep(10)
    assert watched.called == {}
