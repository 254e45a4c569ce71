"""The promise of `store/known.py`: an id that the journal holds is never taken for new, in no moment."""

import asyncio

import pytest

from rkllm_mqtt.core.job import Delivery
from rkllm_mqtt.store.known import CROWDED, KnownIds


def test_what_was_added_may_be_known_and_nearly_nothing_else():
    keys = [("rock", f"client{n % 7}", f"id-{n}") for n in range(CROWDED)]
    known = KnownIds(keys)
    assert all(map(known.may_hold, keys))
    wrong = sum(known.may_hold(("rock", "other", f"id-{n}")) for n in range(10_000))
    assert wrong < 300


def test_a_filter_is_crowded_only_when_many_were_added():
    assert not KnownIds(("rock", "a", str(n)) for n in range(1000)).is_crowded
    assert KnownIds(("rock", "a", str(n)) for n in range(CROWDED)).is_crowded


async def test_a_job_is_known_from_the_question_on(opened, new_job, finished):
    async with opened() as journal:
        assert not journal.may_know("rock", "kitchen", "a")
        writing = journal.admit(new_job("a"), may_insert=True, receipt=None)
        assert journal.may_know("rock", "kitchen", "a")
        await writing
        assert journal.may_know("rock", "kitchen", "a")
        assert not any(
            journal.may_know(*key)
            for key in (("rock", "hall", "a"), ("fleet", "kitchen", "a"), ("rock", "kitchen", "b"))
        )


async def test_a_question_that_stores_nothing_makes_nothing_known(opened, new_job):
    async with opened() as journal:
        await journal.admit(new_job("a"), may_insert=False, receipt=None)
        assert not journal.may_know("rock", "kitchen", "a")


async def test_what_an_earlier_process_stored_is_known(opened, new_job, finished):
    async with opened() as journal:
        await finished(journal, new_job("a"), Delivery.NONE)
    async with opened() as journal:
        assert journal.may_know("rock", "kitchen", "a")
        assert not journal.may_know("rock", "kitchen", "b")


@pytest.mark.parametrize("crowd", [0, CROWDED])
async def test_a_crowded_filter_is_renewed_when_jobs_are_removed(opened, new_job, finished, crowd):
    async with opened() as journal:
        await finished(journal, new_job("old"), Delivery.NONE)
        for n in range(crowd):
            journal._known.add(("rock", "crowd", str(n)))
        purging, admitted = asyncio.create_task(journal.purge(journal.now() + 1)), 0
        while not purging.done():
            await journal.admit(new_job(f"new-{admitted}"), may_insert=True, receipt=None)
            admitted += 1
        assert all(journal.may_know("rock", "kitchen", f"new-{n}") for n in range(admitted))
        assert journal.may_know("rock", "kitchen", "old") is (not crowd)
