"""The promise of `collector.py`: who runs together, and how long anybody waits for that."""

import asyncio

import pytest
from live_jobs import make_job, request
from live_slot import in_loop

from rkllm_mqtt.collector import Collector
from rkllm_mqtt.core.live import LiveJobs


class Desk:
    """A collector over jobs that all came at second 10."""

    def __init__(self, *requests, now=10.0):
        self.now, self.live, self.woken = now, LiveJobs(), 0
        self.jobs = [make_job(one, queued_at=10.0) for one in requests]
        for job in self.jobs:
            self.live.add(job)
        self.collector = Collector(self.live, lambda: self.now, lambda: self.wake())

    def wake(self):
        self.woken += 1

    def gather(self, *, busy=False, ready=lambda _: True):
        return self.collector.gather(self.jobs[0], 3, busy=busy, ready=ready)


@in_loop
async def test_a_full_batch_goes_at_once_also_behind_another():
    desk = Desk(*[request()] * 4)
    assert desk.gather() == desk.gather(busy=True) == desk.jobs[:3]


@in_loop
async def test_an_idle_slot_waits_for_the_window_and_then_takes_what_is_there():
    desk = Desk(request(), request())
    assert desk.gather() == []
    desk.now = 10.02
    assert desk.gather() == desk.jobs


@in_loop
async def test_the_end_of_the_window_is_told():
    desk = Desk(request())
    desk.collector.window_s = 0.001
    told = asyncio.Event()
    desk.wake = told.set
    assert desk.gather() == []
    await told.wait()


@in_loop
async def test_behind_a_batch_that_runs_only_a_full_one_is_staged():
    desk = Desk(request(), request(), now=99)
    assert desk.gather(busy=True) == []
    assert desk.gather() == desk.jobs


@pytest.mark.parametrize("other", [{"sampling": {"top_k": 1}}, {"model": "other"}])
@in_loop
async def test_what_cannot_share_is_left_waiting(other):
    desk = Desk(request(), request(**other), request(), now=99)
    assert desk.gather() == [desk.jobs[0], desk.jobs[2]]


@in_loop
async def test_what_is_expired_or_not_rendered_is_left_waiting():
    desk = Desk(request(), request(), request(), now=99)
    desk.jobs[1].deadline = 50
    assert desk.gather(ready=lambda job: job is not desk.jobs[2]) == [desk.jobs[0]]
