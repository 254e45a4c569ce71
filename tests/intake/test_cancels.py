"""The promise of `intake/reception.py` about cancels: on disk before the PUBACK, and only one's own."""

import pytest

from rkllm_mqtt.core.chat import Address


async def test_a_cancel_is_on_disk_before_its_puback(desk):
    async with desk() as it:
        await it.take("kitchen/request/q7")
        (job,) = it.live.waiting
        it.calls.clear()
        await it.take("kitchen/cancel/q7", b"")
        assert it.calls == [("cancel", job), ("ack", 2)]
        assert (await it.journal.record(job.seq)).cancel_requested


@pytest.mark.parametrize(
    ("topic", "payload", "cancelled"),
    [
        ("kitchen/cancel/q1", b"", ["q1"]),
        ("kitchen/cancel", b"q1", ["q1"]),
        ("kitchen/cancel", {"id": "q2"}, ["q2"]),
        ("kitchen/cancel", {"all": True}, ["q1", "q2"]),
        ("kitchen/cancel", b"", []),
        ("hall/cancel", {"all": True}, []),
        ("fleet/client/kitchen/cancel", {"all": True}, []),
    ],
)
async def test_a_cancel_reaches_the_requests_of_its_own_client_and_target_only(
    desk, topic, payload, cancelled
):
    async with desk(groups=["fleet"]) as it:
        for number in (1, 2):
            await it.take(f"kitchen/request/q{number}")
        it.calls.clear()
        await it.take(topic, payload)
        assert [job.id for (job,) in it.of("cancel")] == cancelled
        assert it.kinds[-1] == "ack"
        assert not it.of("sent")
        assert not it.of("cancel_unknown")


async def test_a_request_and_its_cancel_in_one_batch_find_each_other(desk):
    async with desk() as it:
        it.put("kitchen/request/q7")
        it.put("kitchen/cancel/q7", b"")
        await it.reception.drained()
        assert [job.id for (job,) in it.of("cancel")] == ["q7"]
        assert not it.of("cancel_unknown")


async def test_a_cancel_that_came_too_late_is_answered_with_the_stored_outcome(desk):
    async with desk() as it:
        await it.take("kitchen/request/q7", correlation_data=b"c")
        (job,) = it.live.waiting
        await it.finish(job, b'{"text":"done"}')
        it.calls.clear()
        await it.take("kitchen/cancel/q7", b"")
        ((record, where),) = it.of("resend")
        assert (record.outcome, where) == (b'{"text":"done"}', job.address)
        assert it.kinds == ["resend", "ack"]


async def test_a_cancel_of_an_unknown_id_is_told(desk, kitchen):
    async with desk() as it:
        await it.take("kitchen/cancel/q7", b"")
        await it.take("kitchen/cancel", b"q8")
        assert it.of("cancel_unknown") == [(Address(kitchen, "q7"), "q7"), (Address(kitchen, None), "q8")]


async def test_a_cancel_to_a_group_that_does_not_hold_the_id_is_silent(desk):
    async with desk(groups=["fleet"]) as it:
        await it.take("fleet/client/kitchen/cancel/q7", b"")
        assert it.kinds == ["ack"]


@pytest.mark.parametrize("payload", [b"{", b"two words", {"id": "\ud800"}, {"all": 1}])
async def test_a_cancel_that_names_nothing_is_told_so_but_never_as_an_outcome(desk, payload):
    async with desk() as it:
        await it.take("kitchen/cancel", payload)
        assert it.sent()["kitchen/event"]["error"]["code"] in ("invalid_json", "invalid_request")
        assert it.kinds == ["sent", "ack"]
