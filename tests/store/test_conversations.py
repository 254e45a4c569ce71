"""The promise of `store/conversations.py`: a client's own history, in order, bounded, gone after its time."""

import pytest

from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.store.clock import ClockSource
from rkllm_mqtt.store.conversations import ConversationKey, ConversationLimits, ConversationTurn
from rkllm_mqtt.store.errors import AlreadyFinished

KEY = ConversationKey("rock", "kitchen", "talk")
FEW = ConversationLimits(conversations=3, turns=4, bytes=2_000, ttl_s=1_000)


def exchange(question, answer="ok"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture
def say(new_job, admitted):
    """Let a request of a conversation succeed."""
    count = iter(range(10_000))

    async def turn(journal, question, key=KEY, event=JobEvent.COMPLETED, **answer):
        job = await admitted(journal, new_job(f"q{next(count)}"))
        if event is JobEvent.COMPLETED:
            await journal.claim(job.seq, 1)
        added = ConversationTurn(key, exchange(question, **answer))
        await journal.finish(job.seq, event, b"{}", Delivery.NONE, added)
        return job.seq

    return turn


async def test_turns_come_back_in_their_order_also_after_a_restart(opened, say):
    async with opened() as journal:
        assert await journal.history(KEY) == []
        await say(journal, "Zażółć?")
        await say(journal, "and?")
    async with opened() as journal:
        assert await journal.history(KEY) == [*exchange("Zażółć?"), *exchange("and?")]


async def test_nobody_else_has_that_history(opened, say):
    async with opened() as journal:
        await say(journal, "secret")
        for key in (
            ConversationKey("rock", "hall", "talk"),
            ConversationKey("fleet", "kitchen", "talk"),
            ConversationKey("rock", "kitchen", "other"),
        ):
            assert await journal.history(key) == []


async def test_a_turn_is_stored_together_with_its_outcome_or_not_at_all(opened, say):
    async with opened() as journal:
        seq = await say(journal, "once")
        added = ConversationTurn(KEY, exchange("twice"))
        with pytest.raises(AlreadyFinished):
            await journal.finish(seq, JobEvent.COMPLETED, b"{}", Delivery.NONE, added)
        assert await journal.history(KEY) == exchange("once")


async def test_the_oldest_turns_go_and_the_newest_stays_whatever_its_size(opened, say):
    async with opened(conversations=FEW) as journal:
        for number in range(6):
            await say(journal, f"q{number}")
        kept = [message["content"] for message in await journal.history(KEY) if message["role"] == "user"]
        assert kept == ["q2", "q3", "q4", "q5"]
        await say(journal, "medium", answer="x" * 1_500)
        await say(journal, "medium too", answer="x" * 1_500)
        assert await journal.history(KEY) == exchange("medium too", "x" * 1_500)
        await say(journal, "huge", answer="x" * 9_000)
        assert await journal.history(KEY) == exchange("huge", "x" * 9_000)


async def test_of_many_conversations_the_one_not_used_for_longest_goes(opened, say):
    keys = [ConversationKey("rock", f"client{n}", "talk") for n in range(4)]
    async with opened(conversations=FEW) as journal:
        for key in keys[:3]:
            await say(journal, "hi", key)
        await say(journal, "again", keys[0])
        await say(journal, "hi", keys[3])
        assert [bool(await journal.history(key)) for key in keys] == [True, False, True, True]
        shown = await journal.conversations(10)
        assert [(row.key, row.turns) for row in shown] == [(keys[3], 1), (keys[0], 2), (keys[2], 1)]
        assert all(row.bytes > 0 for row in shown)
        assert len(await journal.conversations(2)) == 2


async def test_a_conversation_that_was_not_used_for_long_is_gone(opened, say):
    uptime = 1_000.0
    source = ClockSource(lambda: "boot", lambda: uptime, lambda: 1_800_000_000.0 + uptime)
    async with opened(conversations=FEW, source=source) as journal:
        await say(journal, "hi")
        uptime += 999
        assert await journal.history(KEY)
        uptime += 2
        assert await journal.history(KEY) == []
        assert await journal.expire_conversations() == 1
        await say(journal, "anew")
        assert await journal.history(KEY) == exchange("anew")
        uptime += 2_000
        await say(journal, "other", ConversationKey("rock", "hall", "x"))
        assert [row.key.client for row in await journal.conversations(10)] == ["hall"]


async def test_a_forgotten_conversation_leaves_nothing(opened, say):
    async with opened() as journal:
        await say(journal, "hi")
        assert await journal.forget_conversation(KEY)
        assert not await journal.forget_conversation(KEY)
        rows = await journal._writer.submit(
            lambda c: c.execute("SELECT count(*) FROM conversation_turns").fetchone()[0]
        )
        assert (rows, await journal.history(KEY)) == (0, [])
