"""A job is taken in once, by its id or by how its message arrived."""

import asyncio

import pytest

from rkllm_mqtt.core.job import Delivery, JobState, Priority


async def test_an_admitted_job_is_stored_with_all_it_was_given(opened, new_job):
    new = new_job("a", deadline=77.25, priority=Priority.INTERACTIVE, request='{"prompt":"\\u0000 é"}')
    async with opened() as journal:
        admission = await journal.admit(new, may_insert=True, receipt=None)
        stored = await journal.record(admission.known.seq)
    assert admission.fresh
    assert stored == admission.known
    assert (stored.state, stored.attempt, stored.outcome) == (JobState.WAITING, 0, None)
    for name in new.__slots__:
        assert getattr(stored, name) == getattr(new, name)


async def test_the_same_id_is_known_and_nothing_is_inserted(opened, new_job, admitted):
    async with opened() as journal:
        first = await admitted(journal, new_job("a"))
        again = await journal.admit(new_job("a", request="other"), may_insert=True, receipt=None)
        elsewhere = await journal.admit(new_job("a", client="hall"), may_insert=True, receipt=None)
        counts = await journal.counts()
    assert (again.known, again.fresh) == (first, False)
    assert elsewhere.fresh
    assert counts["waiting"] == 2


async def test_without_leave_to_insert_admit_only_looks(opened, new_job, admitted):
    async with opened() as journal:
        absent = await journal.admit(new_job("a"), may_insert=False, receipt=None)
        assert (absent.known, absent.fresh) == (None, False)
        first = await admitted(journal, new_job("a"))
        present = await journal.admit(new_job("a"), may_insert=False, receipt=None)
    assert present.known == first


async def test_two_of_the_same_id_in_one_batch_make_one_job(opened, new_job):
    async with opened() as journal:
        answers = await asyncio.gather(
            *(journal.admit(new_job("a"), may_insert=True, receipt=None) for _ in range(20))
        )
    assert [answer.fresh for answer in answers] == [True] + [False] * 19
    assert {answer.known.seq for answer in answers} == {answers[0].known.seq}


async def test_a_redelivered_message_without_id_is_known_by_its_receipt(opened, new_job, new_receipt):
    async with opened() as journal:
        first = await journal.admit(new_job("g1"), may_insert=True, receipt=new_receipt(redelivered=False))
        repeat = await journal.admit(new_job("g2"), may_insert=True, receipt=new_receipt())
    assert (repeat.known.seq, repeat.fresh) == (first.known.seq, False)


@pytest.mark.parametrize(
    "difference",
    [
        {"redelivered": False},
        {"mid": 8},
        {"session": "s2"},
        {"topic": "rkllm/rock/client/hall/request"},
        {"sha256": b"\x02" * 32},
    ],
)
async def test_a_receipt_that_differs_in_anything_is_another_message(
    opened, new_job, new_receipt, difference
):
    async with opened() as journal:
        await journal.admit(new_job("g1"), may_insert=True, receipt=new_receipt(redelivered=False))
        other = await journal.admit(new_job("g2"), may_insert=True, receipt=new_receipt(**difference))
    assert other.fresh


async def test_an_old_receipt_proves_nothing(opened, new_job, new_receipt):
    async with opened(redelivery_window_s=-1.0) as journal:
        await journal.admit(new_job("g1"), may_insert=True, receipt=new_receipt(redelivered=False))
        repeat = await journal.admit(new_job("g2"), may_insert=True, receipt=new_receipt())
    assert repeat.fresh


async def test_a_sequence_number_is_never_given_twice(opened, new_job, admitted, finished):
    async with opened() as journal:
        first = await finished(journal, new_job("a"), Delivery.NONE)
        assert await journal.purge(journal.now() + 1) == 1
    async with opened() as journal:
        second = await admitted(journal, new_job("b"))
    assert second.seq > first
