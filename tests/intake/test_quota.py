"""The promise of `intake/quota.py`: a flood is refused, then dropped, and what was accepted stays so."""

import asyncio
import json

import pytest

from rkllm_mqtt.core.errors import Code, Fault

PAUSED = Fault(Code.PAUSED, "an administrator paused it", "Wait.", 60)
SLOW = {"requests_per_s": 0.001, "requests_burst": 3, "requests_burst_alone": 3}
"""Three requests, and no more within a test."""


def codes(it):
    return [
        json.loads(message.payload)["error"]["code"]
        for (message,) in it.of("sent")
        if "/reply" in message.topic
    ]


async def drops_told(it, count):
    """Wait for so many `rate_limited` events and return them."""
    async with asyncio.timeout(20):
        while True:
            events = [
                (message.topic, message.qos, event)
                for (message,) in it.of("sent")
                if (event := json.loads(message.payload)).get("type") == "rate_limited"
            ]
            if len(events) >= count:
                return events
            await asyncio.sleep(0.02)


# the rate


async def test_beyond_its_rate_a_client_is_told_so_and_when_to_come_again(desk):
    async with desk(limits=SLOW) as it:
        for number in range(5):
            await it.take(f"kitchen/request/q{number}", {"prompt": "hi"})
        await it.take("hall/request/q0", {"prompt": "hi"})
        assert [job.id for job in it.live.waiting] == ["q0", "q1", "q2", "q0"]
        assert codes(it) == ["rate_limited"] * 2
        error = it.sent()["kitchen/reply/q3"]["error"]
        assert error["retryable"]
        assert error["hint"]
        assert 990 < error["retry_after_s"] <= 1000.1
        assert it.sent()["kitchen/event/q3"]["type"] == "rejected"
        assert it.counters.rejected_by_code == {"rate_limited": 2}
        # The last call before each acknowledgement is the refusal.
        assert [it.kinds[at - 1] for at, kind in enumerate(it.kinds) if kind == "ack"].count("sent") == 2


async def test_a_client_may_have_a_rate_of_its_own(desk):
    clients = [{"name": "k*", "requests_per_s": 0.01, "requests_burst": 1}]
    async with desk(limits=SLOW, clients=clients) as it:
        for number in range(5):
            await it.take(f"kitchen/request/q{number}")
            await it.take(f"hall/request/q{number}")
        waiting = [job.client for job in it.live.waiting]
        assert (waiting.count("kitchen"), waiting.count("hall")) == (1, 3)


async def test_a_refusal_for_the_rate_does_not_use_up_the_id_and_costs_no_commit(desk):
    async with desk(limits=SLOW) as it:
        for number in range(3):
            it.put(f"kitchen/request/q{number}")
        await it.reception.drained()
        commits = it.journal.commits
        it.put("kitchen/request/q3")
        assert it.kinds[-2:] == ["sent", "ack"]  # at once, without a task or a question to the journal
        assert it.reception.backlog == 0
        assert it.journal.commits == commits
        it.change(limits={**SLOW, "requests_per_s": 1_000})
        async with asyncio.timeout(20):
            while len(it.live.waiting) < 4:
                await it.take("kitchen/request/q3")
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False] * 4


async def test_a_rate_limited_refusal_goes_to_the_allowed_response_topic_with_its_echoes(desk, kitchen):
    async with desk(limits=SLOW) as it:
        for number in range(4):
            it.put(
                f"kitchen/request/q{number}", response_topic=f"{kitchen.prefix}/mine", correlation_data=b"c"
            )
        await it.reception.drained()
        ((message,),) = it.of("sent")
        assert message.topic == f"{kitchen.prefix}/mine"
        assert message.correlation_data == b"c"
        it.put("kitchen/request/q9", response_topic="rkllm/rock5/client/hall/reply")
        assert "rkllm/rock5/client/hall/reply" not in {message.topic for (message,) in it.of("sent")}


# what is known is never refused


@pytest.mark.parametrize("topic_id", [True, False])
async def test_a_resend_of_an_unfinished_request_is_answered_beyond_the_rate(desk, topic_id):
    async with desk(limits=SLOW) as it:
        topics = [f"kitchen/request/q{n}" if topic_id else "kitchen/request" for n in range(3)]
        for _ in range(4):
            for number, topic in enumerate(topics):
                it.put(topic, {"prompt": "hi", "id": f"q{number}"})
        await it.reception.drained()
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False] * 3 + [True] * 9
        assert it.of("sent") == []


async def test_a_resend_of_a_finished_request_gets_its_outcome_beyond_the_rate(desk):
    async with desk(limits=SLOW) as it:
        await it.take("kitchen/request/q0", {"prompt": "hi"})
        (job,) = it.live.waiting
        await it.finish(job)
        for number in range(1, 4):
            await it.take(f"kitchen/request/q{number}", {"prompt": "hi"})
        await it.take("kitchen/request/q0", {"prompt": "hi"})
        ((record, _),) = it.of("resend")
        assert record.outcome == b'{"text":"done"}'
        assert "kitchen/reply/q0" not in it.sent()


async def test_a_resend_to_a_full_queue_is_a_duplicate_and_a_new_one_is_not_taken(desk):
    async with desk(limits={"client_waiting": 2}) as it:
        for number in (0, 1, 2, 0, 1):
            await it.take(f"kitchen/request/q{number}", {"prompt": "hi"})
        assert [(job.id, duplicate) for job, duplicate, _ in it.of("accepted")] == [
            ("q0", False),
            ("q1", False),
            ("q0", True),
            ("q1", True),
        ]
        assert codes(it) == ["client_limit"]


async def test_resends_to_a_full_queue_need_no_place_and_are_no_refusals(desk):
    async with desk(limits={"client_waiting": 2, "rejects_per_s": 1}) as it:
        for number in (0, 1, *[0, 1] * 5):
            await it.take(f"kitchen/request/q{number}", {"prompt": "hi"})
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False] * 2 + [True] * 10
        assert it.counters.dropped == 0


async def test_another_body_under_a_known_id_is_a_conflict_beyond_the_rate_too(desk):
    async with desk(limits=SLOW) as it:
        for _ in range(3):
            await it.take("kitchen/request/q0", {"prompt": "hi"})
        await it.take("kitchen/request/q0", {"prompt": "other"})
        assert codes(it) == ["id_conflict"]


async def test_a_redelivery_without_id_is_known_beyond_the_rate(desk):
    async with desk(limits=SLOW) as it:
        first = await it.take("kitchen/request", b"hi")
        for _ in range(3):
            await it.take("kitchen/request", b"hi")
        assert len(it.live.waiting) == 3
        await it.take("kitchen/request", b"hi", dup=True, mid=first.mid)
        assert it.of("accepted")[-1][1] is True


# dropping


async def test_beyond_its_refusals_a_client_is_told_once_a_second_how_many_were_dropped(desk):
    async with desk(limits={**SLOW, "rejects_per_s": 2}) as it:
        for number in range(3 + 2 + 7):
            it.put(f"kitchen/request/q{number}", {"prompt": "hi"})
        it.put("hall/request/q0", {"prompt": "hi"})
        await it.reception.drained()
        assert codes(it) == ["rate_limited"] * 2
        assert it.counters.dropped == 7
        assert len(it.of("ack")) == 13
        ((topic, qos, event),) = await drops_told(it, 1)
        assert (topic, qos) == ("rkllm/rock5/client/kitchen/event", 1)
        assert 0 < event.pop("retry_after_s") <= 1000.1
        assert event == {"type": "rate_limited", "n": 0, "id": None, "node": "rock5", "dropped": 7}
        # Not again without a new drop; with one, again.
        for number in range(20, 24):
            it.put(f"kitchen/request/q{number}", {"prompt": "hi"})
        events = await drops_told(it, 2)
        assert [event["dropped"] for *_, event in events] == [7, it.counters.dropped - 7]


async def test_what_is_dropped_is_not_even_parsed(desk):
    async with desk(limits={**SLOW, "rejects_per_s": 1}) as it:
        for number in range(4):
            it.put(f"kitchen/request/q{number}")
        it.put("kitchen/request/q9", b"{" + b"[" * 100_000)
        await it.reception.drained()
        assert it.counters.dropped == 1
        assert "kitchen/reply/q9" not in it.sent()


@pytest.mark.parametrize(
    ("limits", "code"),
    [({"queue_length": 2}, "queue_full"), ({"client_waiting": 2}, "client_limit"), ({}, "paused")],
)
async def test_refusals_of_every_limit_are_bounded_and_counted_by_their_code(desk, limits, code):
    async with desk(limits={**limits, "rejects_per_s": 3}) as it:
        it.put("kitchen/request/q0", {"prompt": "hi"})
        it.put("kitchen/request/q1", {"prompt": "hi"})
        if code == "paused":
            it.fault = PAUSED
        for number in range(2, 10):
            it.put(f"kitchen/request/q{number}", {"prompt": "hi"})
        await it.reception.drained()
        assert codes(it) == [code] * 3
        assert it.counters.rejected_by_code == {code: 3}
        assert it.counters.dropped == 5


async def test_whoever_invents_a_name_for_each_message_is_not_told_without_end(desk):
    async with desk(limits={"queue_length": 1, "rejects_per_s": 2}) as it:
        for number in range(500):
            it.put(f"c{number}/request/q", {"prompt": "hi"})
        await it.reception.drained()
        assert codes(it) == ["queue_full"] * 10
        assert it.counters.dropped == 489
        assert len(it.of("ack")) == 500
        assert len(await drops_told(it, 200)) == 200


async def test_a_request_that_cannot_be_read_is_told_why_as_often_as_its_sender_may_ask(desk):
    """A refusal that was paid for with a token is not one of those that are dropped."""
    async with desk(limits={"rejects_per_s": 1, "requests_burst_alone": 50}) as it:
        for number in range(50):
            it.put(f"kitchen/request/q{number}", b"{")
        assert codes(it) == ["invalid_json"] * 50
        assert it.counters.dropped == 0


# when there is room


@pytest.mark.parametrize(("seconds", "told"), [(None, 30), (4.21, 4.3), (0.0, 0.1)])
async def test_a_full_queue_says_when_a_place_is_free_by_its_pace(desk, seconds, told):
    async with desk(limits={"queue_length": 1}) as it:
        it.frees_in_s = seconds
        await it.take("kitchen/request/q0", {"prompt": "hi"})
        await it.take("hall/request/q0", {"prompt": "hi"})
        assert it.sent()["hall/reply/q0"]["error"]["retry_after_s"] == told


# cancels


async def test_a_cancel_that_finds_its_job_counts_beyond_every_limit(desk):
    async with desk(limits={**SLOW, "rejects_per_s": 1}) as it:
        for number in range(12):
            it.put(f"kitchen/request/q{number}")
        await it.reception.drained()
        await it.take("kitchen/cancel/q1", b"")
        await it.take("kitchen/cancel", b"q2")
        await it.take("kitchen/cancel", b'{"all": true}')
        assert [job.id for (job,) in it.of("cancel")] == ["q1", "q2", "q0", "q1", "q2"]


async def test_a_cancel_right_behind_its_request_counts_beyond_every_limit(desk):
    async with desk(
        limits={**SLOW, "requests_burst": 1, "requests_burst_alone": 1, "rejects_per_s": 1}
    ) as it:
        for number in range(9):
            it.put(f"kitchen/request/q{number}")
        it.put("kitchen/cancel/q0", b"")
        await it.reception.drained()
        assert [job.id for (job,) in it.of("cancel")] == ["q0"]


async def test_cancels_that_find_nothing_are_bounded_like_requests(desk):
    async with desk(limits={**SLOW, "rejects_per_s": 2}) as it:
        for number in range(20):
            await it.take(f"kitchen/cancel/q{number}", b"")
        assert len(it.of("cancel_unknown")) == 3 + 2
        assert it.counters.dropped == 15
        assert len(it.of("ack")) == 20
        await drops_told(it, 1)


async def test_a_cancel_with_a_long_payload_is_not_looked_into(desk):
    async with desk() as it:
        await it.take("kitchen/cancel", b'{"all": true, "why": "' + b"x" * 2_000 + b'"}')
        ((message,),) = it.of("sent")
        assert json.loads(message.payload)["error"]["code"] == "too_large"
        await it.take("kitchen/cancel/q1", b"x" * 2_000)
        assert len(it.of("cancel_unknown")) == 1
