"""The promise of `intake/reception.py` about repeats: one run, one outcome, told as often as it is asked."""

import asyncio
import time

import pytest

from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import Delivery, JobEvent

PAUSED = Fault(Code.PAUSED, "an administrator paused it", "Wait.", 60)


async def test_the_same_id_with_the_same_bytes_is_accepted_again_and_runs_once(desk):
    async with desk() as it:
        for _ in range(3):
            await it.take("kitchen/request/q7", {"prompt": "hi"})
        assert it.live.count == it.counters.accepted == len(it.of("queued")) == 1
        jobs = {id(job) for job, _, _ in it.of("accepted")}
        assert len(jobs) == 1
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False, True, True]
        assert it.kinds[-2:] == ["ack", "accepted"]
        assert it.counters.redelivered == 0


async def test_copies_that_come_at_once_run_once(desk):
    async with desk() as it:
        for _ in range(20):
            it.put("kitchen/request/q7", b"hi")
        await it.reception.drained()
        assert it.live.count == len(it.of("queued")) == 1
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False] + [True] * 19
        assert not it.of("sent")


async def test_a_copy_that_is_answered_before_its_turn_does_not_overtake_the_first(desk, monkeypatch):
    """As on a busy machine, where the journal's thread is done before the loop goes on."""
    async with desk() as it:
        waiting = asyncio.get_running_loop()._ready
        admit = it.journal.admit

        def answered(*args, **options):
            before, answer = len(waiting), admit(*args, **options)
            while len(waiting) == before:
                time.sleep(0)
            return answer

        it.put("kitchen/request/q7", b"hi")
        monkeypatch.setattr(it.journal, "admit", answered)
        it.put("kitchen/request/q7", b"hi")
        it.put("kitchen/request/q8", b"hi")
        await it.reception.drained()
        assert [(job.id, again) for job, again, _ in it.of("accepted")] == [
            ("q7", False),
            ("q7", True),
            ("q8", False),
        ]
        assert it.of("resend") == []


@pytest.mark.parametrize("finished", [False, True])
async def test_the_same_id_with_another_body_is_a_conflict_and_changes_nothing(desk, finished, kitchen):
    async with desk() as it:
        await it.take("kitchen/request/q7", {"prompt": "hi"})
        (job,) = it.live.waiting
        if finished:
            await it.finish(job)
        await it.take("kitchen/request/q7", {"prompt": "other"}, response_topic=f"{kitchen.prefix}/mine")
        assert it.code == "id_conflict"
        assert it.live.count == (not finished)
        assert job.address.response_topic is None
        assert not it.of("resend")


async def test_a_duplicate_is_known_also_when_nothing_new_is_taken(desk):
    async with desk() as it:
        await it.take("kitchen/request/q7")
        it.fault = PAUSED
        await it.take("kitchen/request/q7")
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False, True]
        await it.take("kitchen/request/q7", b"other")
        assert it.code == "id_conflict"


async def test_a_duplicates_response_topic_and_correlation_replace_those_of_an_unfinished_job(desk, kitchen):
    async with desk() as it:
        await it.take("kitchen/request/q7", correlation_data=b"1")
        mine = f"{kitchen.prefix}/mine"
        await it.take("kitchen/request/q7", correlation_data=b"2", response_topic=mine)
        (job,) = it.live.waiting
        assert job.address == Address(kitchen, "q7", mine, b"2")
        stored = await it.journal.record(job.seq)
        assert Address.from_json(stored.address, "rock5", "kitchen") == job.address


async def test_a_duplicate_of_a_finished_request_gets_the_stored_outcome_where_it_asks_now(desk, kitchen):
    async with desk() as it:
        await it.take("kitchen/request/q7", {"prompt": "hi"})
        (job,) = it.live.waiting
        for _ in range(3):
            job.next_event()
        await it.finish(job, b'{"text":"the answer"}')
        it.calls.clear()
        mine = f"{kitchen.prefix}/mine"
        await it.take("kitchen/request/q7", {"prompt": "hi"}, response_topic=mine)
        assert it.kinds == ["ack", "accepted", "resend"]
        ((again, duplicate, _),) = it.of("accepted")
        assert (duplicate, again.id, again.address.event) == (True, "q7", f"{mine}/event")
        assert again.next_event() > job.events
        ((record, where),) = it.of("resend")
        assert (record.outcome, where.reply) == (b'{"text":"the answer"}', mine)
        assert it.live.count == 0


async def test_the_number_of_an_event_rises_from_one_resend_to_the_next(desk):
    async with desk() as it:
        await it.take("kitchen/request/q7")
        (job,) = it.live.waiting
        await it.finish(job)
        it.calls.clear()
        for _ in range(2):
            await it.take("kitchen/request/q7")
        first, second = (again.next_event() for again, _, _ in it.of("accepted"))
        assert 1_000_000_000 <= first <= second


async def test_a_resend_while_the_job_ends_still_gets_the_outcome_at_its_own_topic(desk, kitchen):
    async with desk() as it:
        await it.take("kitchen/request/q7")
        (job,) = it.live.waiting
        await it.journal.claim(job.seq, 1)
        mine = f"{kitchen.prefix}/mine"
        it.put("kitchen/request/q7", response_topic=mine)
        await asyncio.sleep(
            0
        )  # the journal is asked before the end is stored, the new address comes after it
        end = it.journal.finish(job.seq, JobEvent.COMPLETED, b"{}", Delivery.PENDING)
        await it.reception.drained()
        await end
        assert [(record.outcome, where.reply) for record, where in it.of("resend")] == [(b"{}", mine)]
        assert job.address == Address(kitchen, "q7")


async def test_a_redelivery_without_id_is_known_by_how_it_arrived(desk):
    async with desk() as it:
        await it.take("kitchen/request", b"hi", mid=7)
        await it.take("kitchen/request", b"hi", mid=7, dup=True)
        assert it.live.count == it.counters.redelivered == 1
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False, True]


@pytest.mark.parametrize(
    "difference",
    [
        {"dup": False},
        {"mid": 8},
        {"session": "s2"},
        {"payload": b"ho"},
        {"topic": "hall/request"},
        {"qos": 0},
    ],
)
async def test_a_message_without_id_that_differs_in_anything_is_a_new_request(desk, difference):
    async with desk() as it:
        first = {"topic": "kitchen/request", "payload": b"hi", "mid": 7, "qos": 1}
        await it.take(**first)
        await it.take(**{**first, "dup": True, **difference})
        assert it.live.count == 2
        assert it.counters.redelivered == 0
