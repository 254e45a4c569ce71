"""The promise of `outbox.py`: a stored outcome reaches the broker, with the same bytes, whatever happens."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from live_jobs import address, admit, make_job, opened, request
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.mqtt.messages import PublishOutcome
from rkllm_mqtt.outbox import Outbox

DELIVERED, RETRY = PublishOutcome.DELIVERED, PublishOutcome.RETRY


class Broker:
    """Where the outbox publishes; answers each message at once unless it is told otherwise."""

    def __init__(self):
        self.up = True
        self.got = []
        self.verdicts = []
        """The next verdicts; None leaves the publish without an answer."""
        self.open = []

    def publish(self, message):
        self.got.append(message)
        future = asyncio.get_running_loop().create_future()
        verdict = self.verdicts.pop(0) if self.verdicts else DELIVERED
        if verdict is None:
            self.open.append(future)
        else:
            future.set_result(verdict)
        return future


class Kit:
    """An outbox on a real journal."""

    def __init__(self, journal):
        self.journal = journal
        self.broker = Broker()
        self.lasts = []
        self.outbox = Outbox(
            journal,
            self.broker.publish,
            lambda: self.broker.up,
            lambda where, outcome: self.lasts.append((where.last, outcome)),
        )

    async def finished(self, outcome=b'{"text":"hi"}', delivery=Delivery.PENDING, **fields):
        """A job whose outcome is stored."""
        job = await admit(self.journal, make_job(request(**fields)))
        await self.journal.claim(job.seq, 1)
        await self.journal.finish(job.seq, JobEvent.COMPLETED, outcome, delivery)
        return job

    async def delivery(self, job):
        return (await self.journal.record(job.seq)).delivery

    async def settled(self):
        """Wait until nothing is under way."""
        while self.outbox.pending or self.outbox._tasks:
            await self.journal.counts()


@asynccontextmanager
async def outbox_on(folder):
    async with opened(folder) as journal:
        kit = Kit(journal)
        task = asyncio.create_task(kit.outbox.run())
        yield kit
        task.cancel()
        await asyncio.wait({task})


@in_virtual_time
async def test_an_outcome_is_published_and_its_puback_noted(tmp_path):
    async with outbox_on(tmp_path) as kit:
        job = await kit.finished()
        kit.outbox.post(job, b'{"text":"hi"}')
        assert kit.outbox.pending == 1
        await kit.settled()
        assert [(m.topic, m.payload, m.qos, m.retain) for m in kit.broker.got] == [
            (job.address.reply, b'{"text":"hi"}', 1, False)
        ]
        assert await kit.delivery(job) is Delivery.DONE


@in_virtual_time
async def test_while_the_broker_is_away_outcomes_wait_on_disk(tmp_path):
    async with outbox_on(tmp_path) as kit:
        kit.broker.up = False
        jobs = await asyncio.gather(*(kit.finished(b'{"text":"%d"}' % number) for number in range(300)))
        for job in jobs:
            kit.outbox.post(job, b"not looked at: the disk has it")
        await asyncio.sleep(10)
        assert kit.broker.got == []
        assert kit.outbox.pending == 300
        kit.broker.up = True
        kit.outbox.connected()
        await kit.settled()
        assert [m.payload for m in kit.broker.got] == [b'{"text":"%d"}' % number for number in range(300)]
        assert {await kit.delivery(job) for job in jobs} == {Delivery.DONE}


@in_virtual_time
async def test_a_slow_broker_gets_a_few_hundred_at_once_and_the_rest_in_its_time(tmp_path):
    async with outbox_on(tmp_path) as kit:
        kit.broker.verdicts = [None] * 250
        for job in await asyncio.gather(*(kit.finished() for _ in range(250))):
            kit.outbox.post(job, b'{"text":"hi"}')
        await asyncio.sleep(1)
        assert len(kit.broker.got) == 200
        while kit.broker.open or kit.outbox.pending:
            for future in kit.broker.open:
                future.set_result(DELIVERED)
            kit.broker.open.clear()
            await kit.journal.counts()
        assert len(kit.broker.got) == 250


@in_virtual_time
async def test_what_an_earlier_daemon_could_not_deliver_is_delivered_with_its_bytes(tmp_path):
    async with outbox_on(tmp_path) as kit:
        job = await kit.finished(b'{"text":"from before"}', retain=True)
        kit.outbox.recover((await kit.journal.recover()).undelivered)
        await kit.settled()
        assert [m.payload for m in kit.broker.got] == [b'{"text":"from before"}']
        assert kit.lasts == [("rkllm/rock/client/app/last", b'{"text":"from before"}')]
        assert await kit.delivery(job) is Delivery.DONE


@in_virtual_time
async def test_a_broker_over_quota_is_asked_again(tmp_path):
    async with outbox_on(tmp_path) as kit:
        kit.broker.verdicts = [RETRY, RETRY]
        job = await kit.finished()
        kit.outbox.post(job, b'{"text":"hi"}')
        await kit.settled()
        assert len(kit.broker.got) == 3
        assert len({m.payload for m in kit.broker.got}) == 1
        assert await kit.delivery(job) is Delivery.DONE
        assert kit.outbox.refused is None


@in_virtual_time
async def test_an_outcome_above_the_brokers_limit_ends_as_too_large(tmp_path):
    async with outbox_on(tmp_path) as kit:
        kit.broker.verdicts = [PublishOutcome.TOO_LARGE]
        job = await kit.finished()
        kit.outbox.post(job, b'{"id":"q1","text":"hi","thinking":"","status":"ok","finish_reason":"stop"}')
        await kit.settled()
        sent = json.loads(kit.broker.got[-1].payload)
        assert sent["error"]["code"] == "too_large"
        assert (sent["id"], sent["text"], sent["status"]) == ("q1", "", "error")
        assert await kit.delivery(job) is Delivery.DONE


@pytest.mark.parametrize(
    "verdicts", [[PublishOutcome.REFUSED], [PublishOutcome.TOO_LARGE, PublishOutcome.TOO_LARGE]]
)
@in_virtual_time
async def test_a_refused_outcome_is_given_up_and_told_and_a_resend_asks_again(tmp_path, verdicts):
    async with outbox_on(tmp_path) as kit:
        kit.broker.verdicts = list(verdicts)
        verdict = verdicts[-1]
        job = await kit.finished()
        kit.outbox.post(job, b'{"text":"hi"}')
        await kit.settled()
        assert kit.outbox.refused == verdict.value
        assert await kit.delivery(job) is Delivery.REFUSED
        kit.outbox.again(await kit.journal.record(job.seq), job.address)
        await kit.settled()
        assert len(kit.broker.got) == len(verdicts) + 1
        assert await kit.delivery(job) is Delivery.DONE
        assert kit.outbox.refused is None


@in_virtual_time
async def test_with_qos_0_an_outcome_is_sent_once_and_is_in_no_outbox(tmp_path):
    async with outbox_on(tmp_path) as kit:
        job = await kit.finished(delivery=Delivery.NONE, reply_qos=0)
        kit.outbox.post(job, b'{"text":"hi"}')
        assert kit.outbox.pending == 0
        assert [m.qos for m in kit.broker.got] == [0]
        kit.outbox.again(await kit.journal.record(job.seq), job.address)
        await asyncio.sleep(1)
        assert [m.qos for m in kit.broker.got] == [0, 0]
        assert await kit.delivery(job) is Delivery.NONE


@in_virtual_time
async def test_a_resend_goes_where_it_is_asked_for_now_and_not_twice(tmp_path):
    async with outbox_on(tmp_path) as kit:
        kit.broker.up = False
        job = await kit.finished()
        kit.outbox.post(job, b'{"text":"hi"}')
        elsewhere = address(response_topic="rkllm/rock/client/app/new", correlation_data=b"9")
        kit.outbox.again(await kit.journal.record(job.seq), elsewhere)
        kit.broker.up = True
        kit.outbox.connected()
        await kit.settled()
        assert [(m.topic, m.correlation_data) for m in kit.broker.got] == [
            ("rkllm/rock/client/app/new", b"9")
        ]
        unfinished = await admit(kit.journal, make_job())
        kit.outbox.again(await kit.journal.record(unfinished.seq), elsewhere)
        assert len(kit.broker.got) == 1


@in_virtual_time
async def test_who_wrote_bare_text_reads_bare_text_now_and_after_a_restart(tmp_path):
    async with outbox_on(tmp_path) as kit:
        job = await kit.finished(text=True)
        kit.outbox.post(job, b'{"text":"hi"}')
        kit.outbox.recover([job.seq])
        await kit.settled()
        assert [m.payload for m in kit.broker.got] == [b"hi", b"hi"]


@in_virtual_time
async def test_the_newest_answer_is_kept_as_json_also_for_senders_of_text(tmp_path):
    async with outbox_on(tmp_path) as kit:
        job = await kit.finished(text=True, retain=True)
        kit.outbox.post(job, b'{"text":"hi"}')
        assert kit.lasts == [("rkllm/rock/client/app/last", b'{"text":"hi"}')]
        await kit.settled()


@in_virtual_time
async def test_draining_waits_for_the_pubacks_while_the_broker_is_there(tmp_path):
    async with outbox_on(tmp_path) as kit:
        kit.broker.verdicts = [None]
        job = await kit.finished()
        kit.outbox.post(job, b'{"text":"hi"}')
        drained = asyncio.create_task(kit.outbox.drained())
        await asyncio.sleep(5)
        assert not drained.done()
        kit.broker.open.pop().set_result(DELIVERED)
        await drained
        assert await kit.delivery(job) is Delivery.DONE


@in_virtual_time
async def test_a_delivery_that_cannot_be_noted_is_only_published_again_at_a_restart(tmp_path):
    async with opened(tmp_path) as journal:
        kit = Kit(journal)
        job = await kit.finished()
        kit.broker.verdicts = [None]
        kit.outbox.post(job, b'{"text":"hi"}')
    kit.broker.open.pop().set_result(DELIVERED)  # the journal is closed already
    while kit.outbox._tasks:
        await asyncio.wait(set(kit.outbox._tasks))
    async with opened(tmp_path) as journal:
        assert (await journal.recover()).undelivered == [job.seq]


@in_virtual_time
async def test_repeats_for_a_broker_that_does_not_acknowledge_are_bounded(tmp_path):
    async with outbox_on(tmp_path) as kit:
        job = await kit.finished()
        kit.outbox.post(job, b"{}")
        await kit.settled()
        record = await kit.journal.record(job.seq)
        stalled = []

        def publish(message):
            stalled.append(asyncio.get_running_loop().create_future())
            return stalled[-1]

        kit.outbox._publish = publish
        for _ in range(1_000):
            kit.outbox.again(record, job.address)
        assert len(stalled) == 200
        for outcome in stalled:
            outcome.set_result(PublishOutcome.DELIVERED)
        await asyncio.sleep(0)
        kit.outbox.again(record, job.address)
        assert len(stalled) == 201
