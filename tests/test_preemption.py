"""An interactive prompt gets the slot at once; the answer that gave way comes complete, gapless, the same."""

import asyncio

import pytest
from live_dispatcher import dispatching
from live_slot import MODELS, in_loop

from rkllm_mqtt.core.job import JobState, Priority

PLAIN, FAULTY = MODELS / "plain.sim", MODELS / "faulty.sim"
INTERACTIVE, NORMAL, BACKGROUND = Priority


@pytest.fixture
def model(tmp_path):
    """Write a model of one's own."""

    def make(*lines):
        file = tmp_path / "own.sim"
        file.write_text("rkllm-simulator 1\nprofile: instant\n" + "".join(f"{line}\n" for line in lines))
        return file

    return make


def valid(kit, final):
    """Return the deltas of a final that count, in order; each number once."""
    deltas = {}
    for delta in kit.sent.of("delta"):
        if delta["id"] == final["id"]:
            deltas[delta["seq"]] = delta
    assert sorted(deltas) == list(range(final["deltas"]))
    return [deltas[seq] for seq in range(final["deltas"])]


async def disturbed(kit, name, times, prompt="story 300 tokens", **fields):
    """Ask for something long and interrupt it so often; return its final."""
    job = await kit.ask(name, prompt, **fields)
    for number in range(times):
        made = len(kit.sent.of("delta"))
        await kit.until(lambda made=made: len(kit.sent.of("delta")) > made + 2 or kit.finals[name].done())
        voice = await kit.ask(f"{name}-voice-{number}", "say: at once", priority=INTERACTIVE)
        assert (await kit.final(voice.id))["text"] == "at once"
    return job, await kit.final(name)


@pytest.mark.parametrize("priority", [NORMAL, BACKGROUND])
@in_loop
async def test_an_answer_that_gave_way_is_complete_gapless_and_the_undisturbed_one(tmp_path, priority):
    async with dispatching(tmp_path, FAULTY) as kit:
        await kit.ask("whole", "story 300 tokens")
        whole = await kit.final("whole")
        job, final = await disturbed(kit, "long", 3, priority=priority)
        assert final["text"] == whole["text"]
        assert "".join(delta["text"] for delta in valid(kit, final)) == final["text"]
        assert {delta["attempt"] for delta in valid(kit, final)} == {1}
        assert (final["attempt"], final["finish_reason"]) == (1, "stop")
        assert final["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 300
        assert final["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
        assert [event["attempt"] for event in kit.sent.events("started") if event["id"] == "long"] == [1]
        assert kit.sent.events("restarted") == []
        assert kit.counters.preempted >= 2
        assert kit.counters.tokens_discarded <= 0.05 * 300
        assert (await kit.journal.record(job.seq)).carried is None


@in_loop
async def test_times_of_an_interrupted_answer_are_those_of_all_its_runs(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        _, final = await disturbed(kit, "long", 2)
        timing = final["timing"]
        assert timing["queue_ms"] <= timing["ttft_ms"] <= timing["total_ms"]
        assert timing["prefill_ms"] + timing["generate_ms"] <= timing["total_ms"]
        assert 0 < timing["tokens_per_s"] <= 500 * 1.1  # a token takes 2 ms


@in_loop
async def test_the_voice_does_not_wait_for_the_others_of_its_client_nor_for_the_staged_job(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        long = await kit.ask("long", "endless", priority=BACKGROUND)
        await kit.running("long")
        # By one commit: the window of the endless one has an end, which a busy disk would let come first.
        later = (kit.ask(f"more-{number}", "say: later", priority=BACKGROUND) for number in range(50))
        await asyncio.gather(*later)
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        await kit.ask("voice", "say: now", priority=INTERACTIVE)
        await kit.final("voice")
        assert kit.started()[:2] == ["long", "voice"]
        await kit.dispatcher.cancel(long)
        await kit.final("more-49")


@in_loop
async def test_thoughts_stops_and_limits_go_on_over_an_interruption(tmp_path, model):
    file = model(
        "thinking: yes",
        "decode_ms_per_token: 3",
        'when "think": reply "one two three four five six seven eight nine ten STOP eleven"',
    )
    async with dispatching(tmp_path, file, thinking="always") as kit:
        _, final = await disturbed(kit, "long", 6, "think", stop=("STOP",))
        assert final["text"].strip() == "one two three four five six seven eight nine ten"
        assert "think" in final["thinking"]
        assert "<" not in final["thinking"] + final["text"]
        deltas = valid(kit, final)
        assert "".join(delta.get("text", "") for delta in deltas) == final["text"]
        assert "".join(delta.get("thinking", "") for delta in deltas) == final["thinking"]
        _, cut = await disturbed(kit, "cut", 3, "count to 100", max_tokens=40)
        assert (cut["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 40)


@in_loop
async def test_a_long_prompt_gives_way_between_two_chunks_and_is_answered_later(tmp_path, model):
    file = model("prefill_ms_per_token: 1", "decode_ms_per_token: 1")
    async with dispatching(tmp_path, file) as kit:
        long = "The window in the kitchen is open. " * 200 + "say: fine."
        await kit.ask("long", long, priority=BACKGROUND)
        await kit.until(lambda: kit.sent.events("started"))
        asked = asyncio.get_running_loop().time()
        await kit.ask("voice", "say: now", priority=INTERACTIVE)
        voice = await kit.final("voice")
        assert asyncio.get_running_loop().time() - asked < 1.5  # of more than two seconds
        assert voice["text"] == "now"
        assert kit.sent.of("delta")[0]["id"] == "voice"
        final = await kit.final("long")
        assert (final["text"], final["attempt"]) == ("fine.", 1)
        assert kit.scheduler.reuse == {"own": True}


@in_loop
async def test_where_the_cache_does_not_help_chunks_are_given_up(tmp_path, model):
    async with dispatching(tmp_path, model("reuse: no")) as kit:
        await kit.ask("medium", "The window in the kitchen is open. " * 12 + "say: fine.")
        await kit.final("medium")
        assert kit.scheduler.reuse == {}  # one piece says nothing
        long = "The window in the kitchen is open. " * 200 + "say: fine."
        await kit.ask("first", long)
        assert (await kit.final("first"))["text"] == "fine."
        assert kit.scheduler.reuse == {"own": False}
        assert kit.scheduler.chunks(await kit.ask("second", long), long, 0, ()) is None
        assert (await kit.final("second"))["text"] == "fine."


@pytest.mark.parametrize("is_reused", [True, False])
@in_loop
async def test_what_a_probe_has_found_decides_whether_a_prompt_is_cut(tmp_path, is_reused):
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.until(lambda: kit.slot.loaded)
        kit.scheduler.knowledge.learn("plain", reuses_finished=is_reused)
        long = "The window in the kitchen is open. " * 100
        job = await kit.ask("q1", long)
        assert (kit.scheduler.chunks(job, long, 0, ()) is not None) == is_reused


@pytest.mark.parametrize(("each_ms", "pieces"), [(4.0, 256), (0.5, 256 * 4.6875), (0.0, None)])
@in_loop
async def test_a_piece_works_longer_than_it_takes_to_begin_one(tmp_path, each_ms, pieces):
    async with dispatching(tmp_path, PLAIN) as kit:
        rates = kit.scheduler.paces["plain"].rates
        for tokens in (10, 50, 200, 400, 1000, 4000) * 5:
            rates.learn_first_token(0, tokens, 300 + each_ms * tokens)
        long = "word " * 4000
        order = kit.scheduler.chunks(await kit.ask("q1"), long, 0, ())
        await kit.final("q1")
        assert (order and order.tokens) == (pieces and pytest.approx(pieces, rel=0.05))
        await kit.final("q1")


@in_loop
async def test_a_model_with_the_runtimes_own_template_begins_anew_and_says_so(tmp_path):
    async with dispatching(tmp_path, FAULTY, template="runtime") as kit:
        _, final = await disturbed(kit, "long", 1, "count to 60")
        assert (final["attempt"], final["text"][-3:]) == (2, "60.")
        assert [(event["attempt"], event["from_seq"]) for event in kit.sent.events("restarted")] == [(2, 0)]
        last = [delta for delta in kit.sent.of("delta") if delta["id"] == "long" and delta["attempt"] == 2]
        assert "".join(delta["text"] for delta in last) == final["text"]


# ends on the way


@pytest.mark.parametrize("why", ["cancelled", "expired"])
@in_loop
async def test_an_interrupted_job_that_ends_while_it_waits_has_its_partial_text(tmp_path, why):
    async with dispatching(tmp_path, FAULTY) as kit:
        job = await kit.ask("long", "endless")
        await kit.running("long")
        voice = await kit.ask("voice", "endless", priority=INTERACTIVE)
        await kit.until(lambda: job in kit.live.waiting)
        if why == "cancelled":
            await kit.dispatcher.cancel(job)
        else:
            kit.dispatcher.expire(job)
        final = await kit.final("long")
        assert final["error"]["code"] == why
        assert final["text"] == "".join(delta["text"] for delta in valid(kit, final)) != ""
        assert final["usage"]["completion_tokens"] > 0
        await kit.dispatcher.cancel(voice)
        await kit.final("voice")


@in_loop
async def test_after_a_crash_an_answer_goes_on_where_it_was_stored(tmp_path, model):
    file = model(
        "decode_ms_per_token: 5",
        "on run 3: fault segv after 20 tokens",
    )
    async with dispatching(tmp_path, file) as kit:
        _, final = await disturbed(kit, "long", 1, "count to 60")
        assert final["attempt"] == 2
        (restarted,) = kit.sent.events("restarted")
        assert (restarted["attempt"], restarted["from_seq"]) == (
            2,
            min(
                delta["seq"]
                for delta in kit.sent.of("delta")
                if delta["id"] == "long" and delta["attempt"] == 2
            ),
        )
        assert restarted["from_seq"] > 0
        kept = [
            delta
            for delta in kit.sent.of("delta")
            if delta["id"] == "long" and (delta["attempt"] == 2 or delta["seq"] < restarted["from_seq"])
        ]
        assert [delta["seq"] for delta in kept] == list(range(final["deltas"]))
        assert (
            "".join(delta["text"] for delta in kept)
            == final["text"]
            == ", ".join(map(str, range(1, 61))) + "."
        )


@in_loop
async def test_a_stop_keeps_what_was_made_for_the_next_start(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        job = await kit.ask("long", "count to 100")
        await kit.running("long")
        await kit.dispatcher.stop(0)
        record = await kit.journal.record(job.seq)
        assert record.state is JobState.WAITING
        assert record.carried is not None
        assert job.carried.text.startswith("1")
        assert job.carried.text == "".join(delta["text"] for delta in kit.sent.of("delta"))


@in_loop
async def test_paused_nothing_gives_way(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await kit.ask("long", "count to 40")
        await kit.running("long")
        kit.dispatcher.paused = True
        await kit.ask("voice", priority=INTERACTIVE)
        await kit.final("long")
        assert kit.started() == ["long"]
        assert kit.counters.preempted == 0


@in_loop
async def test_a_job_whose_class_is_owed_makes_its_tokens_before_the_voice_comes(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await kit.until(lambda: kit.slot.loaded)
        kit.live.policy.reserves.debts_s[NORMAL] = 7.0
        kit.live.policy.reserves.advance(kit.journal.now(), (False, False, False), None)
        await kit.ask("owed", "count to 300")
        await kit.running("owed")
        await kit.ask("voice", "say: now", priority=INTERACTIVE)
        await kit.final("voice")
        made = next(turn.job.made for turn in kit.dispatcher.turns) if list(kit.dispatcher.turns) else None
        job = next(iter(kit.live.waiting), None) or next(turn.job for turn in kit.dispatcher.turns)
        assert job.made >= 16 or made >= 16
