"""The promise of `dispatcher.py` when the slot is lost: the job runs again, a poisonous one fails alone."""

import asyncio

import pytest
from live_dispatcher import dispatching
from live_slot import MODELS, in_loop

PLAIN, FAULTY = MODELS / "plain.sim", MODELS / "faulty.sim"


@pytest.fixture
def crashing(tmp_path):
    """A model that crashes on the first `crash once` and on every `poison`."""
    file = tmp_path / "crashing.sim"
    file.write_text(
        "rkllm-simulator 1\nprofile: instant\ndecode_ms_per_token: 2\nfault_state: state\n"
        'when "crash once": fault segv after 3 tokens first 1 times\n'
        'when "poison": fault abort after 2 tokens\n'
        'when "stall": fault stall 700 ms after 2 tokens\n'
        'when "wrong once": fault error after 2 tokens first 1 times\n'
    )
    return file


@in_loop
async def test_a_job_that_lost_its_slot_runs_again_from_the_beginning(tmp_path, crashing):
    async with dispatching(tmp_path, crashing) as kit:
        job = await kit.ask("q1", "say: crash once and then speak")
        final = await kit.final("q1")
        assert (final["attempt"], final["text"]) == (2, "crash once and then speak")
        assert [(event["attempt"], event["from_seq"]) for event in kit.sent.events("restarted")] == [(2, 0)]
        valid = [delta for delta in kit.sent.of("delta") if delta["attempt"] == 2]
        assert [delta["seq"] for delta in valid] == list(range(final["deltas"]))
        assert "".join(delta["text"] for delta in valid) == final["text"]
        record = await kit.journal.record(job.seq)
        assert (record.attempt, record.crashes) == (2, 1)
        assert kit.counters.retried == 1


@in_loop
async def test_a_poisonous_prompt_fails_alone_and_its_neighbours_are_answered(tmp_path, crashing):
    async with dispatching(tmp_path, crashing, max_attempts=2) as kit:
        await kit.ask("before")
        await kit.ask("poison", "poison")
        await kit.ask("staged")
        await kit.ask("after")
        final = await kit.final("poison")
        assert final["error"]["code"] == "slot_failed"
        assert final["error"]["hint"]
        assert final["attempt"] == 2
        for name in ("before", "staged", "after"):
            assert (await kit.final(name))["attempt"] == 1
        assert kit.slot.restarts == 2


@in_loop
async def test_an_error_of_the_library_is_tried_again(tmp_path, crashing):
    async with dispatching(tmp_path, crashing) as kit:
        await kit.ask("q1", "say: wrong once")
        await kit.ask("q2")
        assert (await kit.final("q1"))["attempt"] == 2
        assert (await kit.final("q2"))["attempt"] == 1


@in_loop
async def test_a_prompt_in_which_the_library_falls_silent_is_given_up_with_the_reason(tmp_path, crashing):
    async with dispatching(tmp_path, crashing, max_attempts=2, stall_timeout_s=0.2) as kit:
        await kit.ask("q1", "stall")
        await kit.ask("q2")
        error = (await kit.final("q1"))["error"]
        assert error["code"] == "slot_failed"
        assert "silent for too long" in error["message"]
        assert (await kit.final("q2"))["status"] == "ok"


@in_loop
async def test_a_run_that_takes_too_long_ends_with_what_there_is(tmp_path):
    async with dispatching(tmp_path, FAULTY, run_timeout_s=0.3) as kit:
        await kit.ask("q1", "endless")
        final = await kit.final("q1")
        assert (final["error"]["code"], final["finish_reason"]) == ("timeout", "timeout")
        assert final["text"]
        assert final["attempt"] == 1


@in_loop
async def test_replacing_the_worker_is_no_fault_of_the_job_in_it(tmp_path):
    async with dispatching(tmp_path, FAULTY, max_attempts=1) as kit:
        job = await kit.ask("q1", "count to 100")
        await kit.running("q1")
        await kit.ask("q2")
        kit.slot.restart()
        final = await kit.final("q1")
        assert (final["status"], final["attempt"]) == ("ok", 2)
        assert (await kit.journal.record(job.seq)).crashes == 0
        assert [event["attempt"] for event in kit.sent.events("restarted")] == [2]
        assert (await kit.final("q2"))["attempt"] == 1


@pytest.mark.parametrize("why", ["cancelled", "expired"])
@in_loop
async def test_a_job_whose_end_comes_while_it_returns_to_the_queue_does_not_run_again(
    tmp_path, crashing, why
):
    async with dispatching(tmp_path, crashing) as kit:
        job = await kit.ask("q1", "crash once")
        await kit.until(lambda: kit.sent.events("started"))
        go_on = kit.hold_journal()
        await kit.until(lambda: not list(kit.dispatcher.turns))
        wish = None
        if why == "cancelled":
            wish = asyncio.create_task(kit.dispatcher.cancel(job))
            await asyncio.sleep(0)
        else:
            job.deadline = kit.journal.now()
            kit.dispatcher.expire(job)
        go_on.set()
        final = await kit.final("q1")
        assert final["error"]["code"] == why
        assert kit.started() == ["q1"]
        if wish is not None:
            await wish
