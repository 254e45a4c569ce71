"""The promise of `readouts.py`, in the slot: numbers in the final, or a code that says why not."""

import pytest
from live_dispatcher import dispatching
from live_slot import MODELS, in_loop

from rkllm_mqtt.core.job import Priority

PLAIN = MODELS / "plain.sim"
DOOR = "Is the door open? answer with: Yes"


async def evaluate(kit, name, prompt=DOOR, options=("Yes", "No"), **fields):
    await kit.ask(name, prompt, task="evaluate", options=options, max_tokens=1, **fields)
    return await kit.final(name)


@in_loop
async def test_an_evaluation_says_what_the_model_would_answer_and_how_surely(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        final = await evaluate(kit, "q")
    assert (final["status"], final["text"], final["finish_reason"]) == ("ok", "Yes", "stop")
    yes, no = final["evaluation"]
    assert (yes["option"], no["option"]) == ("Yes", "No")
    assert yes["probability"] + no["probability"] == pytest.approx(1)
    assert yes["probability"] > 0.99
    assert no["logprob"] < yes["logprob"] <= 0
    assert (final["deltas"], final["usage"]["completion_tokens"]) == (0, 0)
    assert final["usage"]["prompt_tokens"] > 5
    assert kit.sent.of("delta") == []


@in_loop
async def test_texts_become_vectors_that_can_be_compared(tmp_path):
    texts = ("the kitchen lamp", "the kitchen lamp", "a cold day")
    messages = tuple({"role": "user", "content": text} for text in texts)
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.ask("v", task="embed", messages=messages, max_tokens=1)
        final = await kit.final("v")
    assert [one["index"] for one in final["data"]] == [0, 1, 2]
    same, again, other = (one["embedding"] for one in final["data"])
    assert same == again != other
    assert (final["text"], final["status"]) == ("", "ok")


@pytest.mark.parametrize(("mb", "code"), [(256, None), (5, "too_large")])
@in_loop
async def test_logits_that_would_fill_the_memory_are_refused_before_they_are_computed(tmp_path, mb, code):
    async with dispatching(tmp_path, PLAIN, limits={"logits_max_mb": mb}) as kit:
        final = await evaluate(kit, "q", "word " * 40 + DOOR)
        assert final.get("error", {}).get("code") == code
        assert bool(kit.started()) == (code is None)
        if code:
            assert "logits_max_mb" in final["error"]["hint"]


@in_loop
async def test_what_the_model_does_not_repeat_is_unsupported_and_the_slot_goes_on(tmp_path):
    file = tmp_path / "own.sim"
    file.write_text('rkllm-simulator 1\nprofile: instant\nwhen "Repeat after me": reply "No."\n')
    async with dispatching(tmp_path, file) as kit:
        final = await evaluate(kit, "q", options=("Maybe", "Never"))
        assert final["error"]["code"] == "unsupported"
        await kit.ask("next")
        assert (await kit.final("next"))["text"] == "hello"
        assert kit.slot.restarts == 0


@in_loop
async def test_an_evaluation_that_gave_way_is_computed_anew_and_says_so(tmp_path):
    file = tmp_path / "own.sim"
    file.write_text("rkllm-simulator 1\nprofile: instant\nfloor_ms: 20\n")
    texts = tuple({"role": "user", "content": f"text {number}"} for number in range(40))
    async with dispatching(tmp_path, file) as kit:
        await kit.ask("v", task="embed", messages=texts, max_tokens=1, priority=Priority.BACKGROUND)
        await kit.until(kit.started)
        await kit.ask("voice", "say: at once", priority=Priority.INTERACTIVE)
        assert (await kit.final("voice"))["text"] == "at once"
        assert not kit.finals["v"].done()
        final = await kit.final("v")
        assert len(final["data"]) == 40
        assert final["attempt"] == 2
        (restarted,) = kit.sent.events("restarted")
        assert (restarted["attempt"], restarted["from_seq"]) == (2, 0)
        assert kit.counters.preempted == 1


@in_loop
async def test_a_cancelled_evaluation_frees_the_slot(tmp_path):
    file = tmp_path / "own.sim"
    file.write_text("rkllm-simulator 1\nprofile: instant\nfloor_ms: 20\n")
    texts = tuple({"role": "user", "content": f"text {number}"} for number in range(60))
    async with dispatching(tmp_path, file) as kit:
        job = await kit.ask("v", task="embed", messages=texts, max_tokens=1)
        await kit.until(kit.started)
        await kit.dispatcher.cancel(job)
        assert (await kit.final("v"))["error"]["code"] == "cancelled"


@in_loop
async def test_a_model_without_a_template_needs_its_tokenizer(tmp_path):
    async with dispatching(tmp_path, PLAIN, template="raw") as kit:
        final = await evaluate(kit, "q")
    assert final["error"]["code"] == "unsupported"
    assert "tokenizer" in final["error"]["hint"]


@in_loop
async def test_a_text_longer_than_the_window_is_told_with_its_length(tmp_path):
    async with dispatching(tmp_path, PLAIN, context_tokens=128) as kit:
        messages = ({"role": "user", "content": "word " * 2000},)
        await kit.ask("v", task="embed", messages=messages, max_tokens=1)
        assert (await kit.final("v"))["error"]["code"] == "context_overflow"


@in_loop
async def test_the_prompt_of_an_evaluation_is_no_cached_prefix_of_the_next(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        await evaluate(kit, "q")
        await kit.ask("next", DOOR)
        await kit.final("next")
    assert kit.sent.events("started")[-1]["cached_tokens"] == 0
