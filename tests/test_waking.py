"""The promises of a wake word and of tool rounds in the slot: nothing comes between."""

import asyncio

from live_dispatcher import dispatching
from live_jobs import request
from live_slot import MODELS, in_loop

from rkllm_mqtt.core.chat import PrefixWish
from rkllm_mqtt.core.job import Priority

INTERACTIVE, NORMAL, BACKGROUND = Priority
PLAIN, FAULTY = MODELS / "plain.sim", MODELS / "faulty.sim"
SYSTEM = {"role": "system", "content": "You are the voice of a house. " + "The lamp is on. " * 60}
TOOL = {
    "type": "function",
    "function": {
        "name": "turn_on",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
ASKED = (SYSTEM, {"role": "user", "content": "turn on the lamp"})


async def crowd(kit, count=50):
    """Let background prompts wait behind one that never ends by itself."""
    await kit.ask("long", "endless", priority=BACKGROUND)
    await kit.running("long")
    for number in range(count):
        await kit.ask(f"other-{number}", "say: later", priority=BACKGROUND)


async def wake(kit, name, hold_s, messages=(SYSTEM,), **fields):
    """Wish a prefix to be warm; return the final."""
    wish = PrefixWish("warm", None, hold_s)
    await kit.ask(
        name,
        messages=messages,
        tools=(TOOL,),
        stream=False,
        prefix=wish,
        **{"priority": INTERACTIVE} | fields,
    )
    return await kit.final(name)


@in_loop
async def test_the_second_round_of_a_tool_call_comes_before_fifty_that_wait_and_is_warm(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await crowd(kit)
        await kit.ask("voice", messages=ASKED, tools=(TOOL,), priority=INTERACTIVE)
        first = await kit.final("voice")
        assert first["finish_reason"] == "tool_calls"
        await asyncio.sleep(0.1)  # the home switches its lamp
        assert list(kit.dispatcher.turns) == []
        called = {"role": "assistant", "content": "", "tool_calls": first["tool_calls"]}
        result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "done"}
        await kit.ask("result", messages=(*ASKED, called, result), tools=(TOOL,), priority=INTERACTIVE)
        usage = (await kit.final("result"))["usage"]
        assert kit.started()[:3] == ["long", "voice", "result"]
        assert usage["prompt_tokens"] - usage["cached_tokens"] < 80
        assert kit.live.policy.holds.count == 1
        await kit.until(lambda: "other-0" in kit.started() or len(kit.sent.of("delta")) > 10)


@in_loop
async def test_a_wake_word_keeps_the_slot_for_the_question_and_no_longer(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await crowd(kit, 3)
        warm = await wake(kit, "wake", 5.0)
        assert (warm["prefix"]["state"], warm["prefix"]["hold_s"]) == ("warm", 5.0)
        await asyncio.sleep(0.1)  # somebody speaks
        assert list(kit.dispatcher.turns) == []
        await kit.ask(
            "voice",
            messages=(SYSTEM, {"role": "user", "content": "say: on"}),
            tools=(TOOL,),
            priority=INTERACTIVE,
        )
        usage = (await kit.final("voice"))["usage"]
        assert usage["prompt_tokens"] - usage["cached_tokens"] < 40
        assert kit.started()[:3] == ["long", "wake", "voice"]
        await kit.until(lambda: list(kit.dispatcher.turns))


@in_loop
async def test_a_hold_ends_by_its_time_and_the_others_go_on(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        warm = await wake(kit, "wake", 0.2)
        assert warm["prefix"]["hold_s"] == 0.2
        await kit.ask("other", priority=BACKGROUND)
        assert (await kit.final("other"))["text"] == "hello"
        assert kit.live.policy.holds.held_s > 0.1


@in_loop
async def test_a_question_interrupts_a_prefix_that_is_being_computed_at_its_next_chunk(tmp_path):
    file = tmp_path / "slow.sim"
    file.write_text("rkllm-simulator 1\nprefill_ms_per_token: 3\njoins: stable\n")
    async with dispatching(tmp_path, file, policy={"prefill_chunk_tokens": 64}) as kit:
        long = {"role": "system", "content": "You are the voice of a house. " + "The lamp is on. " * 600}
        wish = PrefixWish("warm", None, 5.0)
        asked = {"messages": (long,), "stream": False, "prefix": wish, "priority": INTERACTIVE}
        await kit.ask("wake", **asked)
        await kit.until(lambda: kit.started() == ["wake"])
        await kit.ask("phone", "say: now", priority=INTERACTIVE)
        assert (await kit.final("phone"))["text"] == "now"
        assert (await kit.final("wake"))["prefix"] == {"name": None, "state": "partial", "hold_s": 0}
        assert not kit.scheduler.holding.active


@in_loop
async def test_a_cancelled_wake_word_holds_nothing(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        job = await kit.ask(
            "wake",
            messages=(SYSTEM,),
            stream=False,
            prefix=PrefixWish("warm", None, 5.0),
            priority=INTERACTIVE,
        )
        await kit.dispatcher.cancel(job)
        final = await kit.final("wake")
        assert final["finish_reason"] in ("cancelled", "stop")
        assert kit.scheduler.holding.active == (final["finish_reason"] == "stop")


@in_loop
async def test_a_prefix_that_does_not_fit_is_told_with_its_numbers(tmp_path):
    async with dispatching(tmp_path, PLAIN, context_tokens=128) as kit:
        final = await wake(kit, "wake", 1.0)
        assert final["error"]["code"] == "context_overflow"


def test_a_wish_survives_the_journal():
    asked = request(messages=(), prefix=PrefixWish("warm", "voice", 3.0))
    assert type(asked).from_json(asked.to_json()) == asked
