"""A job moves only as the table says, and ends once."""

import pytest

from rkllm_mqtt.core.job import Delivery, IllegalTransition, JobEvent, JobState
from rkllm_mqtt.store.errors import AlreadyFinished, NotFinished


async def test_a_job_has_one_outcome_for_ever(opened, new_job, finished):
    async with opened() as journal:
        seq = await finished(journal, new_job("a"))
        with pytest.raises(AlreadyFinished) as refused:
            await journal.finish(seq, JobEvent.CANCEL_CONFIRMED, b"other", Delivery.PENDING)
        stored = await journal.record(seq)
    assert refused.value.state is JobState.SUCCEEDED
    assert (stored.state, stored.outcome, stored.delivery) == (
        JobState.SUCCEEDED,
        b"done",
        Delivery.PENDING,
    )


async def test_a_change_that_the_table_does_not_have_changes_nothing(opened, new_job, admitted):
    async with opened() as journal:
        job = await admitted(journal, new_job("a"))
        with pytest.raises(IllegalTransition):
            await journal.requeue(job.seq, 1)
        with pytest.raises(IllegalTransition):
            await journal.finish(job.seq, JobEvent.COMPLETED, b"never ran", Delivery.PENDING)
        assert await journal.record(job.seq) == job
        await journal.claim(job.seq, 1)
        with pytest.raises(IllegalTransition):
            await journal.claim(job.seq, 2)
        assert (await journal.record(job.seq)).attempt == 1


@pytest.mark.parametrize(
    ("event", "delivery"), [(JobEvent.REQUEUED, Delivery.PENDING), (JobEvent.COMPLETED, Delivery.DONE)]
)
async def test_finish_refuses_what_is_no_end(opened, new_job, event, delivery, admitted):
    async with opened() as journal:
        job = await admitted(journal, new_job("a"))
        await journal.claim(job.seq, 1)
        with pytest.raises(ValueError, match=r"does not finish|cannot be DONE"):
            await journal.finish(job.seq, event, b"x", delivery)
        assert (await journal.record(job.seq)).state is JobState.RUNNING


async def test_running_jobs_wait_again_after_a_restart_with_attempt_and_cancel_kept(
    opened, new_job, admitted, finished
):
    async with opened() as journal:
        waiting, running, lost = [await admitted(journal, new_job(name)) for name in "abc"]
        await journal.claim(running.seq, 1)
        assert await journal.request_cancel(running.seq)
        await journal.claim(lost.seq, 1)
        await journal.requeue(lost.seq, crashes=1)
        pending = await finished(journal, new_job("d"))
        await finished(journal, new_job("e"), Delivery.NONE)
    async with opened() as journal:
        recovered = await journal.recover()
    assert [job.seq for job in recovered.waiting] == [waiting.seq, running.seq, lost.seq]
    assert {job.state for job in recovered.waiting} == {JobState.WAITING}
    assert [(job.attempt, job.crashes) for job in recovered.waiting] == [(0, 0), (1, 0), (1, 1)]
    assert [job.cancel_requested for job in recovered.waiting] == [False, True, False]
    assert recovered.undelivered == [pending]


async def test_the_outbox_empties_by_the_brokers_word(opened, new_job, admitted, finished):
    async with opened() as journal:
        seq = await finished(journal, new_job("a"))
        await journal.delivered(seq, Delivery.REFUSED)
        assert (await journal.recover()).undelivered == []
        await journal.delivered(seq, Delivery.PENDING)
        assert (await journal.recover()).undelivered == [seq]
        await journal.delivered(seq, Delivery.DONE)
        assert (await journal.record(seq)).delivery is Delivery.DONE
        waiting = await admitted(journal, new_job("b"))
        with pytest.raises(NotFinished):
            await journal.delivered(waiting.seq, Delivery.DONE)


async def test_only_an_unfinished_job_takes_another_address_or_a_cancel(opened, new_job, admitted, finished):
    async with opened() as journal:
        job = await admitted(journal, new_job("a"))
        assert await journal.readdress(job.seq, '{"reply":"elsewhere"}')
        assert (await journal.record(job.seq)).address == '{"reply":"elsewhere"}'
        seq = await finished(journal, new_job("b"))
        before = await journal.record(seq)
        assert not await journal.readdress(seq, "late")
        assert not await journal.request_cancel(seq)
        assert await journal.record(seq) == before
