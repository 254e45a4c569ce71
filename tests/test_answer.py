"""The promise of `answer.py`: deltas without gaps that join to the text, signs of life until they come."""

import asyncio

import pytest
from live_jobs import Sent, address, make_job, request
from virtual_loop import in_virtual_time

from rkllm_mqtt.answer import Answer, outbound, publish_event


def begin(job=None, *, interval_s=0.05):
    sent = Sent()
    job = job or make_job(attempt=1)
    return Answer(job, sent, interval_s=interval_s), sent


@in_virtual_time
async def test_nothing_is_published_before_the_attempt_is_open_and_all_of_it_after():
    answer, sent = begin(interval_s=0)
    answer.take(["one ", "two "], 2)
    answer.take([["a thought"]], 3)
    assert sent == []
    answer.open(started_at=0, prefill_s=None)
    answer.take(["three"], 4)
    answer.close()
    assert [delta.get("text", delta.get("thinking")) for delta in sent.of("delta")] == [
        "one ",
        "two ",
        "a thought",
        "three",
    ]
    assert [delta["seq"] for delta in sent.of("delta")] == [0, 1, 2, 3]
    assert (answer.text, answer.thinking, answer.deltas, answer.tokens) == (
        "one two three",
        "a thought",
        4,
        4,
    )


@in_virtual_time
async def test_deltas_are_grouped_by_time_and_the_last_one_comes_when_it_is_due():
    answer, sent = begin(interval_s=0.05)
    answer.open(started_at=0, prefill_s=None)
    for number in range(10):
        answer.take([f"{number} "], number + 1)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    texts = [delta["text"] for delta in sent.of("delta")]
    assert "".join(texts) == "0 1 2 3 4 5 6 7 8 9 "
    assert len(texts) == 3
    answer.close()
    assert len(sent.of("delta")) == answer.deltas == 3


@in_virtual_time
async def test_what_is_held_back_comes_at_the_close():
    answer, sent = begin(interval_s=10)
    answer.open(started_at=0, prefill_s=None)
    answer.take(["first"], 1)
    answer.take(["second"], 2)
    answer.close()
    assert [delta["text"] for delta in sent.of("delta")] == ["first", "second"]
    await asyncio.sleep(100)
    assert len(sent.of("delta")) == 2


@in_virtual_time
async def test_a_dropped_attempt_publishes_nothing_more():
    answer, sent = begin(interval_s=10)
    answer.open(started_at=0, prefill_s=None)
    answer.take(["first"], 1)
    answer.take(["void"], 2)
    answer.drop()
    await asyncio.sleep(100)
    assert [delta["text"] for delta in sent.of("delta")] == ["first"]


@in_virtual_time
async def test_an_attempt_that_never_opened_publishes_nothing_at_its_close():
    answer, sent = begin(interval_s=0)
    answer.take(["void"], 1)
    answer.close()
    assert sent == []
    assert answer.deltas == 0


@in_virtual_time
async def test_who_does_not_stream_gets_no_deltas_but_the_text_is_kept():
    answer, sent = begin(make_job(request(stream=False), attempt=1), interval_s=0)
    answer.open(started_at=0, prefill_s=None)
    answer.take(["hello"], 1)
    answer.close()
    assert sent == []
    assert (answer.text, answer.deltas) == ("hello", 0)


@in_virtual_time
async def test_progress_is_told_every_three_seconds_until_the_first_token():
    answer, sent = begin()
    answer.open(started_at=-1.0, prefill_s=6.0)
    await asyncio.sleep(7)
    told = sent.events("progress")
    assert [(event["phase"], event["elapsed_s"], event["eta_s"]) for event in told] == [
        ("prefill", 4, 2),
        ("prefill", 7, 0),
    ]
    answer.take(["x"], 1)
    await asyncio.sleep(30)
    assert len(sent.events("progress")) == 2
    answer.close()


@in_virtual_time
async def test_an_unknown_prefill_has_no_estimate():
    answer, sent = begin()
    answer.open(started_at=0, prefill_s=None)
    await asyncio.sleep(4)
    assert sent.events("progress")[0]["eta_s"] is None
    answer.close()


@in_virtual_time
async def test_a_token_without_text_is_a_first_token_too():
    answer, _ = begin()
    answer.open(started_at=0, prefill_s=None)
    await asyncio.sleep(1)
    answer.take([], 1)
    assert (answer.first_token_at, answer.tokens) == (1, 1)
    answer.close()


def test_events_count_up_and_senders_of_bare_text_get_none():
    sent = Sent()
    job, text = make_job(), make_job(request(text=True))
    for kind in ("started", "restarted"):
        publish_event(sent, job, kind, attempt=1)
        publish_event(sent, text, kind, attempt=1)
    assert [(event["type"], event["n"], event["id"]) for event in sent.of("event")] == [
        ("started", 0, job.id),
        ("restarted", 1, job.id),
    ]
    assert {message.topic for message in sent} == {f"rkllm/rock/client/app/event/{job.id}"}
    assert {message.qos for message in sent} == {1}


@in_virtual_time
async def test_every_answer_echoes_what_the_request_wants_echoed():
    where = address(correlation_data=b"7", user_properties=(("x-room", "attic"),), response_topic="box/mine")
    job = make_job(where=where, attempt=3)
    answer, sent = begin(job, interval_s=0)
    answer.open(started_at=0, prefill_s=None)
    answer.take(["x"], 1)
    publish_event(sent, job, "started")
    sent(outbound(job.address, job.address.reply, b"{}", qos=1))
    answer.close()
    assert [message.topic for message in sent] == ["box/mine/delta", "box/mine/event", "box/mine"]
    assert {message.correlation_data for message in sent} == {b"7"}
    assert {message.user_properties for message in sent} == {(("x-room", "attic"),)}
    assert sent.of("delta")[0] == {"id": "q1", "attempt": 3, "seq": 0, "text": "x"}


@in_virtual_time
async def test_a_piece_that_is_no_text_is_refused_when_it_comes():
    answer, _ = begin()
    for garbage in ([3], [["a", "b"]], [[None]], [[]], [None]):
        with pytest.raises((TypeError, ValueError)):
            answer.take(garbage, 1)
