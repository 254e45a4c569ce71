"""The promise of `positions.py`: who waits near the front knows its place, and that a model is loading."""

import asyncio
from itertools import chain, islice

from live_jobs import Sent, make_job, request
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.positions import Positions


class Queue:
    """Waiting jobs, and what their senders are told when."""

    def __init__(self):
        self.loop, self.live, self.sent = asyncio.get_running_loop(), LiveJobs(), Sent()
        self.staged, self.loading_since = [], None
        self.times = []
        self.positions = Positions(
            self.live,
            self.send,
            first=self.first,
            loading_since=lambda: self.loading_since,
        )
        self.task = asyncio.create_task(self.positions.run())

    def first(self, most):
        jobs = islice(chain(self.staged, self.live.waiting), most)
        return [(job, place, place * 1.5) for place, job in enumerate(jobs, 1)]

    def send(self, message):
        self.times.append(self.loop.time())
        return self.sent(message)

    def add(self, **fields):
        job = make_job(**fields)
        self.live.add(job)
        self.positions.changed()
        return job

    def places(self, job):
        return [event["position"] for event in self.sent.events("position") if event["id"] == job.id]

    async def end(self):
        self.task.cancel()
        await asyncio.wait({self.task})


@in_virtual_time
async def test_each_of_the_first_twenty_hears_its_place_when_it_changes():
    queue = Queue()
    jobs = [queue.add() for _ in range(25)]
    await asyncio.sleep(2)
    assert [queue.places(job) for job in jobs] == [[place] for place in range(1, 21)] + [[]] * 5
    assert queue.sent.events("position")[2]["eta_s"] == 4.5
    queue.live.forget(jobs[0])
    queue.positions.changed()
    await asyncio.sleep(2)
    assert [queue.places(job) for job in jobs[1:]] == [[n, n - 1] for n in range(2, 21)] + [[20]] + [[]] * 4
    queue.positions.changed()
    await asyncio.sleep(2)
    assert queue.places(jobs[1]) == [2, 1]
    await queue.end()


@in_virtual_time
async def test_no_place_is_told_before_the_job_was_told_to_be_accepted():
    queue = Queue()
    job = queue.add(is_untold=True)
    await asyncio.sleep(2)
    assert queue.places(job) == []
    job.is_untold = False
    queue.positions.changed()
    await asyncio.sleep(2)
    assert queue.places(job) == [1]
    await queue.end()


@in_virtual_time
async def test_a_place_that_changes_all_the_time_is_told_once_a_second():
    queue = Queue()
    last = queue.add(priority=Priority.BACKGROUND)
    await asyncio.sleep(5)
    for _ in range(100):
        queue.live.forget(queue.add())
        queue.add()
        await asyncio.sleep(0.03)
    told = [event for event in queue.sent.events("position") if event["id"] == last.id]
    assert 2 <= len(told) <= 5
    await queue.end()


@in_virtual_time
async def test_the_staged_job_has_the_first_place():
    queue = Queue()
    staged, waiting = make_job(), queue.add()
    queue.staged = [staged]
    await asyncio.sleep(1)
    assert (queue.places(staged), queue.places(waiting)) == ([1], [2])
    await queue.end()


@in_virtual_time
async def test_the_first_sender_hears_every_three_seconds_that_the_model_is_loading():
    queue = Queue()
    await asyncio.sleep(100)
    queue.loading_since = queue.loop.time()
    first, second = queue.add(), queue.add()
    await asyncio.sleep(9.5)
    told = queue.sent.events("progress")
    assert {event["id"] for event in told} == {first.id}
    assert {event["phase"] for event in told} == {"load"}
    assert [round(event["elapsed_s"]) for event in told] == [3, 6, 9]
    queue.loading_since = None
    await asyncio.sleep(20)
    assert len(queue.sent.events("progress")) == 3
    assert second.id not in {event["id"] for event in queue.sent.events("progress")}
    await queue.end()


@in_virtual_time
async def test_senders_of_bare_text_hear_nothing():
    queue = Queue()
    queue.loading_since = 0.0
    queue.add(asked=request(text=True))
    await asyncio.sleep(10)
    assert queue.sent == []
    await queue.end()
