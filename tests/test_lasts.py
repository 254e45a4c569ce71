"""The promise of `lasts.py`: the newest answer of a few clients stays retained, for a time."""

import asyncio
from contextlib import asynccontextmanager

from live_jobs import Sent, address, opened
from virtual_loop import in_virtual_time

from rkllm_mqtt.lasts import LastAnswers
from rkllm_mqtt.store.clock import ClockSource


@asynccontextmanager
async def keeping(folder, *, clients=3, ttl_s=100.0):
    """A broker's retained topics, and what keeps them."""
    loop = asyncio.get_running_loop()
    async with opened(folder, source=ClockSource(uptime_s=lambda: 1000 + loop.time())) as journal:
        sent = Sent()
        lasts = LastAnswers(journal, sent, base="rkllm", ttl_s=ttl_s, clients=clients)
        await lasts.recover()
        task = asyncio.create_task(lasts.run())
        yield lasts, sent
        task.cancel()
        await asyncio.wait({task})


def retained(sent):
    """What a broker holds after these messages."""
    held = {}
    for message in sent:
        assert message.retain
        assert message.qos == 1
        held[message.topic] = message.payload
    return {topic.split("/")[3]: payload for topic, payload in held.items() if payload}


@in_virtual_time
async def test_the_newest_answer_is_retained_and_cleared_after_its_time(tmp_path):
    async with keeping(tmp_path) as (lasts, sent):
        lasts.keep(address("a"), b"1")
        await asyncio.sleep(60)
        lasts.keep(address("a"), b"2")
        assert sent[-1].topic == "rkllm/rock/client/a/last"
        await asyncio.sleep(90)
        assert retained(sent) == {"a": b"2"}
        await asyncio.sleep(20)
        assert retained(sent) == {}


@in_virtual_time
async def test_the_client_that_was_silent_longest_gives_way(tmp_path):
    async with keeping(tmp_path) as (lasts, sent):
        for name in ("a", "b", "c", "a", "d"):
            lasts.keep(address(name), name.encode())
        assert retained(sent) == {"a": b"a", "c": b"c", "d": b"d"}
        assert [message.topic for message in sent if not message.payload] == ["rkllm/rock/client/b/last"]


@in_virtual_time
async def test_no_client_is_kept_where_none_may_be(tmp_path):
    async with keeping(tmp_path, clients=0) as (lasts, sent):
        lasts.keep(address("a"), b"1")
        assert sent == []


@in_virtual_time
async def test_what_an_earlier_daemon_left_is_cleared_in_its_time(tmp_path):
    async with keeping(tmp_path, ttl_s=50) as (lasts, _):
        lasts.keep(address("short"), b"1")
    async with keeping(tmp_path, ttl_s=200) as (lasts, _):
        lasts.keep(address("long"), b"1")
    async with keeping(tmp_path) as (lasts, sent):
        await asyncio.sleep(60)
        assert [message.topic for message in sent] == ["rkllm/rock/client/short/last"]
        assert sent[0].payload == b""
    async with keeping(tmp_path) as (lasts, sent):
        await asyncio.sleep(10)
        assert sent == []
        await asyncio.sleep(200)
        assert [message.topic for message in sent] == ["rkllm/rock/client/long/last"]


@in_virtual_time
async def test_a_journal_that_fails_takes_nobody_down(tmp_path):
    async with opened(tmp_path) as journal:
        pass
    sent = Sent()
    lasts = LastAnswers(journal, sent, base="rkllm", ttl_s=10, clients=3)
    lasts.keep(address("a"), b"1")
    await asyncio.sleep(0.1)
    assert retained(sent) == {"a": b"1"}
