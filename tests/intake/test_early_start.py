"""The promise of the early start: an idle slot computes what is being stored, and never what may be known."""

import sqlite3

from rkllm_mqtt.core.errors import Code, Fault


async def test_an_idle_slot_gets_a_new_request_while_it_is_being_stored(desk):
    async with desk() as it:
        it.idle = True
        it.put("kitchen/request/q7")
        ((job, stored),) = it.of("begin_early")
        assert (job.id, job.seq, stored.done()) == ("q7", 0, False)
        assert not it.live.count
        await it.reception.drained()
        assert stored.result() is True
        assert (it.live.in_slot, list(it.live.waiting)) == ([job], [])
        assert (await it.journal.record(job.seq)).id == "q7"
        assert it.of("queued") == [(job,)]
        assert it.kinds.index("ack") < it.kinds.index("accepted")


async def test_what_may_be_known_waits_for_the_journal(desk):
    async with desk() as it:
        await it.take("kitchen/request/q7")
        (job,) = it.live.waiting
        await it.finish(job)
        it.idle = True
        await it.take("kitchen/request/q7")
        await it.take("kitchen/request", dup=True)
        assert it.of("begin_early") == []
        it.put("kitchen/request/q8")
        it.put("kitchen/request/q8")  # the same, before the first is stored
        await it.reception.drained()
        assert [job.id for job, _ in it.of("begin_early")] == ["q8"]


async def test_what_is_refused_is_not_computed(desk):
    async with desk() as it:
        it.idle = True
        it.fault = Fault(Code.PAUSED, "an administrator paused it", "Wait.", 60)
        await it.take("kitchen/request/q7")
        assert it.of("begin_early") == []


async def test_what_cannot_be_stored_is_given_up(desk):
    async with desk() as it:
        it.idle = True
        shell = sqlite3.connect(it.journal.path, isolation_level=None)
        shell.execute("CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN SELECT RAISE(ROLLBACK, 'full'); END")
        shell.close()
        await it.take("kitchen/request/q7")
        ((_, stored),) = it.of("begin_early")
        assert stored.result() is False
        assert it.code == "internal"
        assert not it.live.count
