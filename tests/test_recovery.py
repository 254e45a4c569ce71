"""The promise of `recovery.py`: what an earlier process left unfinished goes on where it may, or ends."""

import asyncio
import json
from contextlib import asynccontextmanager

from live_jobs import address, admit, make_job, opened, request
from live_slot import slot_config
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.deadlines import Deadlines
from rkllm_mqtt.outcomes import Outcomes
from rkllm_mqtt.recovery import recover_jobs


class Recovered:
    """A daemon's parts after its start on a journal."""

    def __init__(self, journal):
        self.journal, self.live, self.posted, self.passed = journal, LiveJobs(), [], []
        self.deadlines = Deadlines(self.live, journal.now, self.passed.append)

    async def start(self, boots=2):
        outcomes = Outcomes(
            slot_config(),
            self.live,
            Counters(),
            self.journal,
            post=lambda job, outcome: self.posted.append((job.id, json.loads(outcome))),
            payload_limit=lambda _: 10**6,
            on_change=lambda: None,
        )
        records = (await self.journal.recover()).waiting
        await recover_jobs(records, boots, self.journal.now(), self.live, self.deadlines, outcomes, ["plain"])


@asynccontextmanager
async def after_restart(folder, *jobs, change=None):
    """Store jobs, let the daemon die and start again."""
    async with opened(folder) as journal:
        for job in jobs:
            await admit(journal, job)
        if change:
            await change(journal)
    async with opened(folder) as journal:
        recovered = Recovered(journal)
        yield recovered
        recovered.deadlines.close()


@in_virtual_time
async def test_jobs_wait_again_in_their_order_with_everything_that_was_asked(tmp_path):
    asked = request("say: hi", stop=("END",), sampling={"top_k": 3}, reply_bytes=99)
    where = address(request_id="q2", correlation_data=b"\x00\xff", response_topic="rkllm/rock/client/app/x")
    jobs = [
        make_job(id="q1", priority=Priority.BACKGROUND),
        make_job(asked, where, id="q2"),
        make_job(id="q3", priority=Priority.INTERACTIVE),
        make_job(id="q4"),
    ]

    async def change(journal):
        await journal.claim(jobs[3].seq, 2)  # it was running

    async with after_restart(tmp_path, *jobs, change=change) as recovered:
        await recovered.start()
        assert [job.id for job in recovered.live.waiting] == ["q3", "q2", "q4", "q1"]
        second, fourth = recovered.live.find("rock", "app", "q2"), recovered.live.find("rock", "app", "q4")
        assert (second.request, second.address) == (asked, where)
        assert fourth.attempt == 2
        assert recovered.posted == []


@in_virtual_time
async def test_the_numbers_of_events_go_on_rising_after_each_restart(tmp_path):
    async with after_restart(tmp_path, make_job(id="q1")) as recovered:
        await recovered.start(boots=3)
        assert recovered.live.find("rock", "app", "q1").next_event() == 3_000_000


@in_virtual_time
async def test_a_cancel_that_was_stored_is_confirmed_after_the_restart(tmp_path):
    jobs = [make_job(id="q1"), make_job(id="q2")]

    async def change(journal):
        await journal.claim(jobs[0].seq, 1)
        await journal.request_cancel(jobs[0].seq)

    async with after_restart(tmp_path, *jobs, change=change) as recovered:
        await recovered.start()
        assert [(name, final["error"]["code"]) for name, final in recovered.posted] == [("q1", "cancelled")]
        assert [job.id for job in recovered.live.waiting] == ["q2"]


@in_virtual_time
async def test_a_job_whose_model_is_not_configured_any_more_ends(tmp_path):
    async with after_restart(tmp_path, make_job(request(model="old"), id="q1")) as recovered:
        await recovered.start()
        ((name, final),) = recovered.posted
        assert (name, final["error"]["code"]) == ("q1", "unknown_model")
        assert "plain" in final["error"]["hint"]
        assert recovered.live.count == 0


@in_virtual_time
async def test_no_deadline_passes_before_somebody_can_take_it(tmp_path):
    # The first has expired; ending the second takes a commit, in which timers may fire.
    jobs = [make_job(id="expired", deadline=0.001), make_job(id="cancelled")]

    async def change(journal):
        await journal.request_cancel(jobs[1].seq)

    async with after_restart(tmp_path, *jobs, change=change) as recovered:
        await recovered.start()
        assert recovered.passed == []
        await asyncio.sleep(0.01)
        assert [job.id for job in recovered.passed] == ["expired"]


@in_virtual_time
async def test_the_time_before_the_restart_counts_as_waiting_but_never_as_less_than_none(tmp_path):
    now = make_job().accepted_at
    jobs = [make_job(id="old", accepted_at=now - 100), make_job(id="future", accepted_at=now + 10_000)]
    async with after_restart(tmp_path, *jobs) as recovered:
        await recovered.start()
        old, future = (recovered.live.find("rock", "app", name) for name in ("old", "future"))
        assert recovered.journal.now() - old.queued_at >= 100
        assert 0 <= recovered.journal.now() - future.queued_at < 100


@in_virtual_time
async def test_a_prompt_that_another_version_stored_differently_is_answered_and_holds_up_nobody(tmp_path):
    jobs = [make_job(id="q1"), make_job(id="q2"), make_job(request(text=True), id="q3"), make_job(id="q4")]

    async def change(journal):
        for seq, body in (
            (jobs[0].seq, '{"model":"plain"}'),
            (jobs[1].seq, jobs[1].request.to_json()[:-1] + ',"from_the_future":1}'),
            (jobs[2].seq, '{"text":true,"from_the_future":1}'),
        ):
            statement = ("UPDATE requests SET request = ? WHERE seq = ?", (body, seq))
            await journal._writer.submit(lambda c, s=statement: c.execute(*s).rowcount)

    async with after_restart(tmp_path, *jobs, change=change) as recovered:
        await recovered.start()
        assert [job.id for job in recovered.live.all()] == ["q4"]
        assert [name for name, _ in recovered.posted] == ["q1", "q2", "q3"]
        for _, outcome in recovered.posted:
            assert outcome["error"]["code"] == "internal"
            assert "Send it again" in outcome["error"]["hint"]
