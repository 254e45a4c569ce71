"""The promise of `intake/backlog.py`: a message is acknowledged whatever happens, and counted until then."""

import asyncio

import pytest

from rkllm_mqtt.intake.backlog import Backlog
from rkllm_mqtt.mqtt.messages import Inbound
from rkllm_mqtt.store.errors import StoreFull


def message(payload):
    return Inbound("t", payload, 1, False, False, 1, None, None, None, None, (), 1, "s")


async def test_messages_and_their_bytes_are_counted_from_receipt_to_acknowledgement():
    acked = []
    backlog = Backlog(acked.append)
    may_end = [asyncio.Event(), asyncio.Event()]
    messages = [message(b"x" * 100), message(b"y" * 1_000)]
    _, second = [backlog.start(end.wait(), one) for end, one in zip(may_end, messages, strict=True)]
    assert (len(backlog), backlog.bytes, acked) == (2, 1_100, [])
    drained = asyncio.ensure_future(backlog.drained())
    may_end[1].set()
    await second
    assert (len(backlog), backlog.bytes, acked) == (1, 100, messages[1:])
    assert not drained.done()
    may_end[0].set()
    await drained
    assert (len(backlog), backlog.bytes, acked) == (0, 0, messages[::-1])


@pytest.mark.parametrize("error", [StoreFull("no space"), RuntimeError("a bug of ours")])
async def test_a_message_whose_work_fails_is_acknowledged_and_logged_without_its_content(error, caplog):
    acked = []

    async def fail():
        raise error

    backlog = Backlog(acked.append)
    one = message(b"a secret question")
    await backlog.start(fail(), one)
    assert acked == [one]
    assert caplog.records
    assert "secret" not in caplog.text
