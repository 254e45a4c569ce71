"""The promise of `store/lookup.py`: what is committed is known at once, and a doubt counts as known."""

from rkllm_mqtt.core.job import Delivery
from rkllm_mqtt.store.lookup import Lookup


async def test_a_job_is_known_from_its_commit_until_it_is_purged(opened, new_job, finished):
    async with opened() as journal:
        assert not journal.may_know("rock", "kitchen", "a")
        await finished(journal, new_job("a"), Delivery.NONE)
        assert journal.may_know("rock", "kitchen", "a")
        assert not any(
            journal.may_know(*key)
            for key in (("rock", "hall", "a"), ("fleet", "kitchen", "a"), ("rock", "kitchen", "b"))
        )
        await journal.purge(journal.now() + 1)
        assert not journal.may_know("rock", "kitchen", "a")


async def test_the_question_does_not_wait_for_a_commit_that_is_under_way(opened, new_job, admitted):
    async with opened() as journal:
        connection = Lookup(journal.path)
        writing = journal.admit(new_job("a"), may_insert=True, receipt=None)
        connection.may_know("rock", "kitchen", "a")  # either answer, at once
        await writing
        assert connection.may_know("rock", "kitchen", "a")
        connection.close()


async def test_where_nothing_can_be_read_everything_may_be_known(opened):
    async with opened() as journal:
        lookup = Lookup(journal.path)
        lookup.close()
        assert lookup.may_know("rock", "kitchen", "a")


async def test_closing_the_journal_still_empties_its_log(path, opened, new_job, admitted):
    async with opened() as journal:
        await admitted(journal, new_job("a"))
        journal.may_know("rock", "kitchen", "a")
    assert not path.with_name(path.name + "-wal").exists()
