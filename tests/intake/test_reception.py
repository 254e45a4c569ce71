"""The promise of `intake/reception.py`: commit, then PUBACK, then `accepted`; a refusal before its PUBACK.

The journal is a real one; the neighbours are a recorder, whose calls show the order.
"""

import hashlib
import json

import pytest

from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import JobState, Priority

PAUSED = Fault(Code.PAUSED, "an administrator paused it", "Wait.", 60)


# new requests


async def test_a_request_is_committed_then_acknowledged_then_accepted_and_queued_once(desk, kitchen):
    async with desk() as it:
        message = it.put("kitchen/request/q7", {"prompt": "hi", "seed": 1, "priority": "interactive"})
        assert it.calls == []
        assert it.reception.backlog == 1
        await it.reception.drained()
        assert it.reception.backlog == 0
        assert sorted(it.kinds) == ["accepted", "ack", "queued"]
        assert it.kinds.index("ack") < it.kinds.index("accepted")
        ((job, duplicate, ignored),) = it.of("accepted")
        stored = await it.journal.record(job.seq)
    assert (duplicate, ignored) == (False, ("seed",))
    assert [job] == list(it.live.waiting) == [queued for (queued,) in it.of("queued")]
    assert (job.id, job.client, job.priority, job.attempt) == ("q7", "kitchen", Priority.INTERACTIVE, 0)
    assert it.counters.accepted == 1
    assert (stored.state, stored.sha256) == (JobState.WAITING, hashlib.sha256(message.payload).digest())
    assert (stored.target, stored.client, stored.id) == ("rock5", "kitchen", "q7")
    assert ChatRequest.from_json(stored.request) == job.request
    assert Address.from_json(stored.address, "rock5", "kitchen") == job.address == Address(kitchen, "q7")


async def test_an_id_in_the_json_is_the_jobs_but_not_the_topics(desk, kitchen):
    async with desk() as it:
        await it.take("kitchen/request", {"prompt": "hi", "id": "mine"})
        await it.take("kitchen/request/q7", {"prompt": "hi", "id": "mine"})
        by_json, by_topic = it.live.waiting
    assert (by_json.id, by_json.address) == ("mine", Address(kitchen, None))
    assert (by_topic.id, by_topic.address) == ("q7", Address(kitchen, "q7"))


async def test_requests_without_an_id_get_different_ones_and_answers_without_id(desk, kitchen):
    async with desk() as it:
        for _ in range(2):
            await it.take("kitchen/request", b"hi")
        first, second = it.live.waiting
    assert first.id != second.id
    assert first.address == Address(kitchen, None)
    assert first.request.text


async def test_a_group_is_a_target_of_its_own(desk):
    async with desk(groups=["fleet"]) as it:
        await it.take("fleet/client/kitchen/request/q7")
        await it.take("kitchen/request/q7")
        assert {job.key for job in it.live.waiting} == {
            ("fleet", "kitchen", "q7"),
            ("rock5", "kitchen", "q7"),
        }


async def test_requests_of_one_connection_wait_in_the_order_in_which_they_came(desk):
    async with desk() as it:
        for number in range(50):
            it.put(f"kitchen/request/q{number}")
        await it.reception.drained()
        assert [job.id for job in it.live.waiting] == [f"q{number}" for number in range(50)]
        assert [mid for (mid,) in it.of("ack")] == list(range(1, 51))


async def test_an_empty_payload_is_acknowledged_and_ignored(desk):
    async with desk() as it:
        await it.take("kitchen/request", b"")
        await it.take("kitchen/request/q7", b"")
        assert it.kinds == ["ack", "ack"]


async def test_a_stored_message_is_counted_and_never_run(desk):
    async with desk() as it:
        await it.take("kitchen/request/q7", retain=True)
        await it.take("kitchen/cancel/q7", retain=True)
        assert it.kinds == ["ack", "ack"]
        assert it.counters.ignored_retained == 2
        assert not it.live.count


# deadlines


@pytest.mark.parametrize(
    ("ttl_s", "expiry_s", "expected_s"),
    [(100, None, 100), (100, 30, 30), (100, 300, 100), (None, 30, 30), (None, None, 1_000), (100, 0, 0)],
)
async def test_the_smaller_of_ttl_and_message_expiry_counts_from_acceptance(
    desk, ttl_s, expiry_s, expected_s
):
    async with desk(limits={"ttl_s": 1_000}) as it:
        before = it.journal.now()
        await it.take("kitchen/request/q7", {"prompt": "hi", "ttl_s": ttl_s}, message_expiry_s=expiry_s)
        (job,) = it.live.waiting
        assert before + expected_s <= job.deadline <= it.journal.now() + expected_s
        assert before <= job.queued_at <= it.journal.now()
        assert (await it.journal.record(job.seq)).deadline == job.deadline


# response topics and echoes


async def test_an_allowed_response_topic_takes_the_place_of_reply(desk, kitchen):
    mine = f"{kitchen.prefix}/mine"
    async with desk() as it:
        await it.take("kitchen/request/q7", response_topic=mine)
        (job,) = it.live.waiting
        assert job.address.reply == mine


async def test_a_pattern_of_the_configuration_allows_more(desk):
    async with desk(reply_topics=["home/{client}/in"]) as it:
        await it.take("kitchen/request/q7", response_topic="home/kitchen/in")
        await it.take("kitchen/request/q8", response_topic="home/hall/in")
        assert [job.address.reply for job in it.live.waiting] == ["home/kitchen/in"]
        assert it.code == "reply_topic_denied"


@pytest.mark.parametrize("payload", [b"hi", {"prompt": "hi"}])
async def test_a_foreign_response_topic_is_denied_at_the_mailbox_and_nothing_goes_there(desk, payload):
    async with desk() as it:
        await it.take("kitchen/request/q7", payload, response_topic="rkllm/rock5/client/hall/reply")
        assert it.code == "reply_topic_denied"
        assert set(it.sent()) <= {"kitchen/event/q7", "kitchen/reply/q7"}
        assert not it.live.count


async def test_an_error_found_later_goes_to_the_response_topic(desk, kitchen):
    async with desk() as it:
        await it.take("kitchen/request/q7", {"ttl_s": 0}, response_topic=f"{kitchen.prefix}/mine")
        assert set(it.sent()) == {"kitchen/mine", "kitchen/mine/event"}


async def test_correlation_data_and_x_properties_are_kept_and_no_others(desk):
    properties = (("x-room", "kitchen"), ("secret", "s"), ("X-No", "n"), ("x-room", "again"))
    async with desk() as it:
        await it.take("kitchen/request/q7", correlation_data=b"\0\xff", user_properties=properties)
        (job,) = it.live.waiting
        stored = await it.journal.record(job.seq)
    assert job.address.correlation_data == b"\0\xff"
    assert job.address.user_properties == (("x-room", "kitchen"), ("x-room", "again"))
    assert Address.from_json(stored.address, "rock5", "kitchen") == job.address


@pytest.mark.parametrize(
    ("correlation_data", "properties", "fits"),
    [
        (b"c" * 1_024, (), True),
        (b"c" * 1_025, (), False),
        (b"c" * 1_001, (("x-a", "é" * 10),), True),
        (b"c" * 1_002, (("x-a", "é" * 10),), False),
        (None, (("x-a", "v" * 1_021),), True),
        (None, (("x-a", "v" * 1_022),), False),
        (None, (("other", "v" * 5_000),), True),
    ],
)
async def test_what_is_echoed_has_at_most_one_kibibyte_together(desk, correlation_data, properties, fits):
    async with desk() as it:
        await it.take("kitchen/request/q7", correlation_data=correlation_data, user_properties=properties)
        assert it.live.count == fits
        if not fits:
            assert it.code == "too_large"
            ((message,),) = it.of("sent")
            assert (message.correlation_data, message.user_properties) == (None, ())


# refusals


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{", "invalid_json"),
        ({"id": "q1"}, "invalid_request"),
        ({"prompt": "hi", "model": "huge"}, "unknown_model"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported"),
        (b"x" * 300_000, "too_large"),
    ],
)
async def test_a_refusal_is_published_before_its_puback_and_nothing_is_stored(desk, payload, code):
    async with desk() as it:
        await it.take("kitchen/request/q7", payload)
        assert it.kinds[-1] == "ack"
        assert set(it.kinds[:-1]) == {"sent"}
        assert it.code == code
        assert sum((await it.journal.counts()).values()) == 0
        assert it.counters.rejected == 1
        # A refusal does not use up the id.
        await it.take("kitchen/request/q7", b"hi")
        assert [duplicate for _, duplicate, _ in it.of("accepted")] == [False]


async def test_the_id_of_a_refused_request_is_told_as_far_as_it_can_be_read(desk):
    async with desk() as it:
        await it.take("kitchen/request/q7", {"id": "other", "ttl_s": 0})
        await it.take("kitchen/request", {"id": "mine", "ttl_s": 0})
        await it.take("kitchen/request", b"{")
        ids = [json.loads(message.payload)["id"] for (message,) in it.of("sent")]
        assert ids == ["q7", "q7", "mine", "mine", None, None]


@pytest.mark.parametrize("tail", ["event", "delta", "a/b", "a b"])
@pytest.mark.parametrize("verb", ["request", "cancel"])
async def test_a_bad_id_in_the_topic_is_an_error_on_reply_without_id(desk, verb, tail):
    async with desk() as it:
        await it.take(f"kitchen/{verb}/{tail}", {"prompt": "hi"})
        assert it.code == "invalid_request"
        assert set(it.sent()) == {"kitchen/event", "kitchen/reply"}
        assert it.kinds[-1] == "ack"


async def test_what_the_daemon_cannot_take_now_is_refused_with_its_reason(desk):
    async with desk() as it:
        it.fault = PAUSED
        await it.take("kitchen/request/q7", {"prompt": "hi"})
        assert it.sent()["kitchen/reply/q7"]["error"]["retry_after_s"] == 60
        assert it.code == "paused"
        assert it.kinds == ["sent", "sent", "ack"]


async def test_the_queue_takes_exactly_its_length_also_of_what_comes_at_once(desk):
    async with desk(limits={"queue_length": 5}) as it:
        for number in range(8):
            it.put(f"c{number}/request/q")
        await it.reception.drained()
        assert [job.client for job in it.live.waiting] == [f"c{number}" for number in range(5)]
        assert it.sent() == {
            f"c{number}/reply/q": b"ERROR queue_full: 5 prompts wait already" for number in range(5, 8)
        }


async def test_who_can_never_be_in_time_is_told_when_and_nothing_is_stored(desk):
    async with desk() as it:
        it.too_late = Fault(Code.EXPIRED, "its answer would begin in about 42 s", eta_s=42.0)
        it.put("kitchen/request/q1", {"prompt": "hi", "ttl_s": 1})
        await it.reception.drained()
        event, final = it.sent()["kitchen/event/q1"], it.sent()["kitchen/reply/q1"]
        assert (event["type"], event["eta_s"], event["error"]["code"]) == ("rejected", 42.0, "expired")
        assert "42 s" in final["error"]["message"]
        assert await it.journal.find("rock5", "kitchen", "q1") is None
        it.too_late = None
        it.put("kitchen/request/q1", {"prompt": "hi", "ttl_s": 1})
        await it.reception.drained()
        assert it.of("accepted")


async def test_a_client_has_exactly_its_places_and_others_have_theirs(desk):
    async with desk(limits={"client_waiting": 2}) as it:
        for number in range(4):
            it.put(f"kitchen/request/q{number}")
        it.put("hall/request/q0")
        await it.reception.drained()
        assert [(job.client, job.id) for job in it.live.waiting] == [
            ("kitchen", "q0"),
            ("kitchen", "q1"),
            ("hall", "q0"),
        ]
        assert set(it.sent()) == {"kitchen/reply/q2", "kitchen/reply/q3"}
        assert it.sent()["kitchen/reply/q2"].startswith(b"ERROR client_limit: ")
        # What left the queue leaves its place.
        it.live.take(it.live.waiting.first(Priority.NORMAL))
        await it.take("kitchen/request/q4")
        assert it.live.waiting.of_client("kitchen") == 2


async def test_a_refused_or_known_request_holds_no_place(desk):
    async with desk(limits={"queue_length": 2}) as it:
        await it.take("kitchen/request/q0")
        it.fault = PAUSED
        await it.take("kitchen/request/q1")
        it.fault = None
        await it.take("kitchen/request/q0")
        await it.take("kitchen/request/q2")
        assert [job.id for job in it.live.waiting] == ["q0", "q2"]


async def test_a_journal_that_cannot_store_is_told_as_internal_and_retryable(desk):
    async with desk() as it:
        await it.journal.close()
        await it.take("kitchen/request/q7", {"prompt": "hi"})
        error = it.sent()["kitchen/reply/q7"]["error"]
        assert (error["code"], error["retryable"]) == ("internal", True)
        assert it.kinds == ["sent", "sent", "ack"]
        assert not it.live.count


# the end


async def test_while_stopping_messages_stay_with_the_broker(desk):
    async with desk() as it:
        it.reception.closed = True
        await it.take("kitchen/request/q7")
        await it.take("kitchen/cancel/q7")
        assert it.calls == []


async def test_while_stopping_what_the_broker_has_not_kept_is_refused(desk):
    async with desk() as it:
        it.reception.closed = True
        await it.take("kitchen/request/q7", {"prompt": "hi"}, qos=0)
        assert it.sent()["kitchen/reply/q7"]["error"]["code"] == "shutting_down"
        it.calls.clear()
        await it.take("kitchen/request/q7", b"hi", qos=0)
        assert it.sent()["kitchen/reply/q7"].startswith(b"ERROR shutting_down: ")
        it.calls.clear()
        await it.take("kitchen/request", b"", qos=0)
        await it.take("kitchen/request", b"hi", qos=0, retain=True)
        assert it.kinds == ["ack"]


async def test_a_fault_of_a_neighbour_stops_neither_the_intake_nor_the_acks(desk):
    async with desk() as it:
        it.failing = "cancel"
        await it.take("kitchen/request/q7")
        await it.take("kitchen/cancel/q7", b"")
        await it.take("kitchen/request/q8")
        assert it.of("ack") == [(1,), (2,), (3,)]
        assert it.live.count == 2
