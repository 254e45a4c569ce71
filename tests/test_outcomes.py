"""The promise of `outcomes.py`: each job gets one outcome, stored before it is delivered."""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

import pytest
from live_jobs import admit, make_job, opened, request
from live_slot import slot_config
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.answers import Timing, Usage
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import Delivery, JobEvent, JobState
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.verdict import CANCELLED, EXPIRED, Ended
from rkllm_mqtt.outcomes import Outcomes, Produced
from rkllm_mqtt.store.errors import StoreFull

DONE = Ended(JobEvent.COMPLETED, "stop")
FAILED = Ended(JobEvent.GAVE_UP, "error", Fault(Code.SLOT_FAILED, "it crashed", "Try another."))
PRODUCED = Produced("the answer", "the thoughts", Usage(10, 5, 3), Timing(1, 2, 3, 4, 5, 6), 4)


class Kit:
    """Outcomes on a real journal, and what is posted."""

    def __init__(self, journal, *, payload_limit=1_000_000, **limits):
        self.journal, self.live, self.counters = journal, LiveJobs(), Counters()
        self.posted = []
        self.changes = 0
        self.outcomes = Outcomes(
            slot_config(limits=limits),
            self.live,
            self.counters,
            journal,
            post=self.post,
            payload_limit=lambda _: payload_limit,
            on_change=self.change,
        )

    def post(self, job, outcome):
        self.posted.append((job, outcome))

    def change(self):
        self.changes += 1

    async def running(self, **fields):
        job = await admit(self.journal, make_job(request(**fields)))
        self.live.add(job)
        self.live.take(job)
        await self.journal.claim(job.seq, 1)
        job.attempt = 1
        return job


@asynccontextmanager
async def kit_on(folder, **options):
    async with opened(folder) as journal:
        yield Kit(journal, **options)


@in_virtual_time
async def test_an_outcome_is_on_disk_when_it_is_posted_and_the_job_is_forgotten(tmp_path):
    async with kit_on(tmp_path) as kit:
        job = await kit.running()
        await kit.outcomes.end(job, DONE, PRODUCED)
        (posted,) = kit.posted
        record = await kit.journal.record(job.seq)
        assert posted == (job, record.outcome)
        assert (record.state, record.delivery) == (JobState.SUCCEEDED, Delivery.PENDING)
        assert kit.live.count == 0
        assert kit.changes == 1
        final = json.loads(record.outcome)
        assert (final["id"], final["node"], final["model"]) == (job.id, "rock", "plain")
        assert (final["text"], final["thinking"]) == ("the answer", "the thoughts")
        assert (final["status"], final["finish_reason"], final["attempt"]) == ("ok", "stop", 1)
        assert final["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 3}
        assert final["timing"]["ttft_ms"] == 2
        assert final["deltas"] == 4
        assert not final["truncated"]


@in_virtual_time
async def test_nothing_is_posted_before_it_is_stored(tmp_path):
    async with kit_on(tmp_path) as kit:
        job = await kit.running()
        ending = asyncio.create_task(kit.outcomes.end(job, DONE, PRODUCED))
        await asyncio.sleep(0)
        assert kit.posted == []
        await ending
        assert len(kit.posted) == 1


@in_virtual_time
async def test_a_second_outcome_of_a_job_is_neither_stored_nor_posted(tmp_path):
    async with kit_on(tmp_path) as kit:
        job = await kit.running()
        await kit.outcomes.end(job, DONE, PRODUCED)
        await kit.outcomes.end(job, FAILED, PRODUCED)
        assert len(kit.posted) == 1
        assert (await kit.journal.record(job.seq)).state is JobState.SUCCEEDED


@in_virtual_time
async def test_an_outcome_that_does_not_fit_on_the_disk_is_withheld_until_it_does(tmp_path):
    async with kit_on(tmp_path) as kit:
        job = await kit.running()
        await limit_pages(kit.journal, 1)
        ending = asyncio.create_task(kit.outcomes.end(job, DONE, Produced("x" * 200_000)))
        await asyncio.sleep(4)
        assert kit.posted == []
        assert kit.live.count == 1
        while not ending.done():
            with contextlib.suppress(StoreFull):  # when it shares its commit with one that fails
                await limit_pages(kit.journal, 0)
        await ending
        assert kit.posted == [(job, (await kit.journal.record(job.seq)).outcome)]


async def limit_pages(journal, pages):
    """Let SQLite find no space beyond `pages`; 0 takes the limit away."""
    await journal._writer.submit(
        lambda c: c.execute(f"PRAGMA max_page_count = {pages or 4_294_967_294}").fetchone()
    )


@pytest.mark.parametrize(
    ("verdict", "state", "counter", "code"),
    [
        (DONE, JobState.SUCCEEDED, "succeeded", None),
        (FAILED, JobState.FAILED, "failed", "slot_failed"),
        (CANCELLED, JobState.CANCELLED, "cancelled", "cancelled"),
        (EXPIRED, JobState.EXPIRED, "expired", "expired"),
    ],
)
@in_virtual_time
async def test_every_end_has_its_state_its_count_and_its_code(tmp_path, verdict, state, counter, code):
    async with kit_on(tmp_path) as kit:
        job = await kit.running()
        await kit.outcomes.end(job, verdict, PRODUCED)
        assert (await kit.journal.record(job.seq)).state is state
        counts = {
            name: getattr(kit.counters, name) for name in ("succeeded", "failed", "cancelled", "expired")
        }
        assert counts == {name: int(name == counter) for name in counts}
        assert kit.counters.tokens_generated == 5
        assert (kit.counters.tokens_prompt, kit.counters.tokens_cached) == (10, 3)
        final = json.loads(kit.posted[0][1])
        assert final["status"] == ("error" if code else "ok")
        assert final.get("error", {}).get("code") == code
        assert final["text"] == "the answer"  # also of a failure: what there was


@in_virtual_time
async def test_a_job_that_never_ran_says_how_long_it_waited(tmp_path):
    async with kit_on(tmp_path) as kit:
        job = await admit(kit.journal, make_job())
        job.queued_at -= 5
        kit.live.add(job)
        await kit.outcomes.end_unrun(job, EXPIRED)
        timing = json.loads(kit.posted[0][1])["timing"]
        assert timing["queue_ms"] == timing["total_ms"] >= 5000
        assert timing["ttft_ms"] is None


@in_virtual_time
async def test_the_text_is_cut_to_what_the_sender_the_daemon_and_the_broker_take(tmp_path):
    async with kit_on(tmp_path, reply_bytes=1000) as kit:
        for wanted, cut in ((10, 10), (None, 1000), (5000, 1000)):
            job = await kit.running(reply_bytes=wanted)
            await kit.outcomes.end(job, DONE, Produced("ü" * 2000))
            final = json.loads(kit.posted[-1][1])
            assert len(final["text"].encode()) == cut
            assert final["truncated"]


@in_virtual_time
async def test_a_final_never_exceeds_what_the_broker_takes(tmp_path):
    async with kit_on(tmp_path, payload_limit=2000) as kit:
        job = await kit.running()
        await kit.outcomes.end(job, DONE, Produced('"\n' * 2000))
        assert len(kit.posted[0][1]) <= 2000
        assert json.loads(kit.posted[0][1])["truncated"]


@in_virtual_time
async def test_who_asked_for_qos_0_has_no_place_in_the_outbox(tmp_path):
    async with kit_on(tmp_path) as kit:
        job = await kit.running(reply_qos=0)
        await kit.outcomes.end(job, DONE, PRODUCED)
        assert len(kit.posted) == 1
        assert (await kit.journal.record(job.seq)).delivery is Delivery.NONE


@in_virtual_time
async def test_a_note_that_cannot_be_written_is_only_logged(tmp_path, caplog):
    async with opened(tmp_path) as journal:
        kit = Kit(journal)
    await kit.outcomes.note(lambda: journal.claim(1, 1))
