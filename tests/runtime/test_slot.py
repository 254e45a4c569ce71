from live_slot import MODELS, in_loop, running, slot_config


@in_loop
async def test_a_prompt_is_answered():
    async with running(slot_config(MODELS / "plain.sim")) as live:
        assert await live.answer("say: hello") == "hello"
