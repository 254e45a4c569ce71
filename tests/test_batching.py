"""Batches on a real slot: together where that helps, one by one where it does not."""

import pytest
from live_dispatcher import dispatching
from live_slot import in_loop

PACE = ("decode_ms_per_token: 2", "batch_slope: 0.1")
PROMPTS = {"a": "count to 30", "b": "say: one two", "c": "story 40 tokens", "d": "say: grüße 😀"}


@pytest.fixture
def model(tmp_path):
    def write(*lines, name="plain"):
        path = tmp_path / f"{name}.sim"
        path.write_text("\n".join(["rkllm-simulator 1", "profile: instant", *lines, ""]))
        return path

    return write


async def answers(kit, prompts=PROMPTS, **fields):
    """Ask all before any of them runs; return their texts."""
    kit.dispatcher.paused = True
    for name, prompt in prompts.items():
        await kit.ask(name, prompt, **fields)
    kit.dispatcher.paused = False
    kit.dispatcher.wake()
    return {name: (await kit.final(name))["text"] for name in prompts}


@in_loop
async def test_four_prompts_run_as_one_batch_and_each_answer_is_that_of_a_single_run(tmp_path, model):
    runs = {}
    for columns in (1, 4):
        folder = tmp_path / str(columns)
        folder.mkdir()
        async with dispatching(folder, model(*PACE), n_batch=columns) as kit:
            await kit.until(lambda kit=kit: kit.slot.loaded)
            await answers(kit)
            finals = {name: await kit.final(name) for name in PROMPTS}
            runs[columns] = {name: (final["text"], final["finish_reason"]) for name, final in finals.items()}
            for name, final in finals.items():
                mine = [delta for delta in kit.sent.of("delta") if delta["id"] == name]
                assert "".join(delta["text"] for delta in mine) == final["text"]
                assert [delta["seq"] for delta in mine] == list(range(final["deltas"]))
            if columns == 4:  # deltas of all columns flow while the batch runs
                ids = [delta["id"] for delta in kit.sent.of("delta")]
                longest = [place for place, name in enumerate(ids) if name in "ac"]
                assert {"a", "c"} <= set(ids[longest[0] : longest[len(longest) // 2]])
    assert runs[4] == runs[1]


@in_loop
async def test_a_cancelled_column_ends_at_once_and_disturbs_nobody(tmp_path, model):
    async with dispatching(tmp_path, model(*PACE), n_batch=3) as kit:
        await kit.until(lambda: kit.slot.loaded)
        endless = await kit.ask("endless", "story 9000 tokens")
        await kit.ask("a", "count to 60")
        await kit.running("endless")
        await kit.dispatcher.cancel(endless)
        assert (await kit.final("endless"))["finish_reason"] == "cancelled"
        said = len([delta for delta in kit.sent.of("delta") if delta["id"] == "endless"])
        final = await kit.final("a")
        assert (final["text"].endswith("59, 60."), final["attempt"]) == (True, 1)
        assert len([delta for delta in kit.sent.of("delta") if delta["id"] == "endless"]) == said


@in_loop
async def test_a_library_that_asserts_loses_nothing_and_runs_one_by_one_from_then_on(tmp_path, model):
    file = model(*PACE, "batch: asserts")
    async with dispatching(tmp_path, file, n_batch=4, max_attempts=1) as kit:
        await kit.until(lambda: kit.slot.loaded)
        told = await answers(kit)
        assert told["b"] == "one two"
        assert (kit.counters.succeeded, kit.slot.restarts, kit.slot.columns) == (4, 1, 1)
        (reason,) = kit.dispatcher.batching.reasons
        assert (reason.code, reason.serious) == ("batch_off", False)
        assert '"batch": true' in reason.hint
    async with dispatching(tmp_path, file, n_batch=4, max_attempts=1) as kit:  # remembered
        await kit.until(lambda: kit.slot.loaded)
        assert await answers(kit, {"e": "say: five", "f": "say: six"}) == {"e": "five", "f": "six"}
        assert (kit.slot.restarts, kit.slot.columns) == (0, 1)
        assert kit.dispatcher.batching.try_again("plain")
        assert kit.dispatcher.batching.reasons == []
        await kit.until(lambda: kit.slot.loaded and kit.slot.columns == 4)
        assert await answers(kit, {"g": "say: seven", "h": "say: eight"}) == {"g": "seven", "h": "eight"}
        assert [reason.code for reason in kit.dispatcher.batching.reasons] == ["batch_off"]


@in_loop
async def test_batches_that_gain_nothing_are_switched_off_once_a_single_run_is_known(tmp_path, model):
    file = model("decode_ms_per_token: 3", "batch_slope: 1")
    models = [{"id": "plain", "file": file, "n_batch": 4}, {"id": "alone", "file": file}]
    async with dispatching(tmp_path, models=models) as kit:
        await kit.until(lambda: kit.slot.loaded)
        prompts = {str(n): "count to 20" for n in range(4)}
        await answers(kit, prompts)
        assert kit.slot.columns == 4
        assert kit.dispatcher.batching.reasons == []
        await answers(kit, {"single": "count to 20"}, model="alone")
        (reason,) = kit.dispatcher.batching.reasons
        assert "one by one" in reason.message
        again = {f"again {n}": "count to 20" for n in range(3)}
        assert len(set((await answers(kit, again)).values())) == 1
        assert kit.slot.columns == 1


@in_loop
async def test_batches_that_gain_stay_on_although_nothing_else_runs_the_file(tmp_path, model, monkeypatch):
    monkeypatch.setattr("rkllm_mqtt.batching._IDLE_S", 0.01)
    async with dispatching(tmp_path, model("decode_ms_per_token: 3", "batch_slope: 0"), n_batch=4) as kit:
        await kit.until(lambda: kit.slot.loaded)
        await answers(kit, {str(n): "count to 20" for n in range(4)})
        await kit.until(lambda: kit.slot.loaded and kit.slot.columns == 1)  # to compare, while idle
        await answers(kit, {"single": "count to 20"})
        await kit.until(lambda: kit.slot.loaded and kit.slot.columns == 4)
        assert kit.dispatcher.batching.reasons == []


@in_loop
async def test_a_prompt_that_may_be_too_long_runs_alone_and_fails_alone(tmp_path, model):
    async with dispatching(tmp_path, model(*PACE), n_batch=3, context_tokens=64) as kit:
        await kit.until(lambda: kit.slot.loaded)
        told = {"a": "say: one", "long": "word " * 70, "b": "say: two"}
        texts = await answers(kit, told)
        assert (texts["a"], texts["b"]) == ("one", "two")
        assert (await kit.final("long"))["error"]["code"] == "context_overflow"
        assert kit.dispatcher.batching.reasons == []


@in_loop
async def test_the_columns_of_a_batch_share_the_time_that_their_clients_are_charged(tmp_path, model):
    async with dispatching(tmp_path, model("decode_ms_per_token: 4", "batch_slope: 0"), n_batch=4) as kit:
        await kit.until(lambda: kit.slot.loaded)
        await answers(kit, {str(n): "count to 30" for n in range(4)})
        finals = [await kit.final(str(n)) for n in range(4)]
        times = [final["timing"] for final in finals]
        batch_ms = max(time["prefill_ms"] + time["generate_ms"] for time in times)
        assert kit.counters.busy_s == pytest.approx(batch_ms / 1000, rel=0.1, abs=0.01)


@in_loop
async def test_a_model_that_loads_for_one_only_runs_one_by_one(tmp_path, model):
    async with dispatching(tmp_path, model(*PACE, "batch: refuses"), n_batch=4) as kit:
        assert await answers(kit, {"a": "say: one", "b": "say: two"}) == {"a": "one", "b": "two"}
        assert (kit.slot.columns, kit.slot.setbacks.load_failures, kit.slot.problem) == (1, 0, None)
        (reason,) = kit.dispatcher.batching.reasons
        assert reason.code == "batch_off"
        assert "malloc" in reason.message


@in_loop
async def test_a_model_that_does_not_load_at_all_is_no_fault_of_batches(tmp_path, model):
    async with dispatching(tmp_path, model("on init: fault fail"), n_batch=4) as kit:
        await kit.until(lambda: kit.slot.setbacks.load_failures == 2)
        assert "malloc" in kit.slot.problem.message
        assert kit.dispatcher.batching.reasons == []


@in_loop
async def test_a_prompt_that_kills_single_runs_too_gives_batches_back(tmp_path, model):
    file = model(*PACE, 'when "poison": fault abort after 1 tokens')
    async with dispatching(tmp_path, file, n_batch=3, max_attempts=1) as kit:
        await kit.until(lambda: kit.slot.loaded)
        kit.dispatcher.paused = True
        for name, prompt in {"a": "count to 30", "bad": "poison", "b": "say: two"}.items():
            await kit.ask(name, prompt)
        kit.dispatcher.paused = False
        kit.dispatcher.wake()
        finals = {name: await kit.final(name) for name in ("a", "bad", "b")}
        assert {name: final["status"] for name, final in finals.items()} == {
            "a": "ok", "bad": "error", "b": "ok",
        }  # fmt: skip
        assert finals["bad"]["error"]["code"] == "slot_failed"
        assert kit.dispatcher.batching.reasons == []
        await kit.until(lambda: kit.slot.loaded and kit.slot.columns == 3)


@in_loop
async def test_prompts_of_another_sampling_never_share_a_batch(tmp_path, model):
    async with dispatching(tmp_path, model(*PACE), n_batch=4) as kit:
        await kit.until(lambda: kit.slot.loaded)
        kit.dispatcher.paused = True
        for name, temperature in {"a": 0.1, "b": 0.1, "c": 0.9}.items():
            await kit.ask(name, "show your parameters", sampling={"temperature": temperature})
        kit.dispatcher.paused = False
        kit.dispatcher.wake()
        texts = {name: (await kit.final(name))["text"] for name in "abc"}
        assert texts["a"] == texts["b"] != texts["c"]
        assert "0.9" in texts["c"]


@in_loop
async def test_a_runtime_that_knows_no_batches_says_what_helps_and_nothing_is_blamed(tmp_path, model):
    async with dispatching(tmp_path, model(), n_batch=2, simulator_version="1.2.0") as kit:
        await kit.until(lambda: kit.slot.setbacks.load_failures)
        assert "`n_batch: 1`" in kit.slot.problem.hint
        assert kit.dispatcher.batching.reasons == []
