"""The promise of `residence.py`: one load for all who wait, the pinned model back, an idle one away."""

import asyncio
import json

import pytest
from live_dispatcher import dispatching
from live_slot import in_loop

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.residence import LOADS_KEY


@pytest.fixture
def model(tmp_path):
    """Return the file of a model that says its name."""

    def make(name, load_ms=60):
        file = tmp_path / f"{name}.sim"
        file.write_text(f'rkllm-simulator 1\nprofile: instant\nload_ms: {load_ms}\nalways: reply "{name}"\n')
        return file

    return make


@pytest.fixture
def loaded(events):
    """Return the models that were loaded, in their order."""
    return lambda: [facts["model"] for name, facts in events if name == "model_loaded"]


@in_loop
async def test_many_first_requests_at_once_load_their_model_once(tmp_path, model, loaded):
    async with dispatching(tmp_path, model("talk"), model("code", 150)) as kit:
        names = [f"q{number}" for number in range(20)]
        await asyncio.gather(*(kit.ask(name, model="code") for name in names))
        assert {(await kit.final(name))["text"] for name in names} == {"code"}
        assert loaded().count("code") == 1
        assert kit.slot.restarts == 0


@in_loop
async def test_mixed_work_is_grouped_by_its_model_and_loads_are_learned_and_kept(tmp_path, model, loaded):
    async with dispatching(tmp_path, model("talk", 200), model("code", 200)) as kit:
        await kit.ask("first")
        await kit.final("first")
        kit.dispatcher.paused = True
        for number in range(8):
            await kit.ask(f"q{number}", model="talk" if number % 2 else "code")
        kit.dispatcher.paused = False
        kit.dispatcher.wake()
        for number in range(8):
            assert (await kit.final(f"q{number}"))["text"] == ("talk" if number % 2 else "code")
        assert loaded() == ["talk", "code"]
        assert kit.live.policy.tenancy.model == "code"
        assert kit.slot.loads.seconds("code") >= 0.2
        await kit.dispatcher.stop(0)
        kept = json.loads(kit.journal.meta[LOADS_KEY])
    assert min(kept["talk"][0], kept["code"][0]) >= 0.2
    async with dispatching(tmp_path, model("talk", 200), model("code", 200)) as kit:
        await kit.until(lambda: kit.slot.loaded)
        assert kit.slot.loads.to_json()["code"] == kept["code"]


@in_loop
async def test_interactive_work_interrupts_lower_work_of_another_model_which_then_goes_on(tmp_path, model):
    talk = tmp_path / "talk.sim"
    talk.write_text("rkllm-simulator 1\nprofile: instant\ndecode_ms_per_token: 5\n")
    async with dispatching(tmp_path, talk, model("code")) as kit:
        await kit.ask("low", "count to 60", priority=Priority.BACKGROUND)
        await kit.running("low")
        await kit.ask("voice", priority=Priority.INTERACTIVE, model="code")
        assert (await kit.final("voice"))["text"] == "code"
        assert not kit.finals["low"].done()
        final = await kit.final("low")
        assert (final["attempt"], final["text"]) == (1, ", ".join(map(str, range(1, 61))) + ".")


# files


@in_loop
async def test_a_replaced_file_is_loaded_between_two_jobs_and_a_removed_one_harms_nobody(tmp_path, model):
    file = model("talk")
    async with dispatching(tmp_path, file) as kit:
        await kit.ask("before")
        assert (await kit.final("before"))["text"] == "talk"
        pid = kit.slot.pid
        newer = tmp_path / "newer"
        newer.write_text(file.read_text().replace('reply "talk"', 'reply "newer"'))
        newer.replace(file)
        await kit.until(lambda: kit.slot.loaded and kit.slot.pid not in (None, pid))
        await kit.ask("after")
        assert (await kit.final("after"))["text"] == "newer"
        assert kit.slot.restarts == 0
        pid = kit.slot.pid
        file.unlink()
        for _ in range(2):  # what it does each second
            kit.slot._look_at_files()
        await kit.ask("removed")
        assert (await kit.final("removed"))["text"] == "newer"
        assert kit.slot.pid == pid


# adapters


@pytest.fixture
def with_adapters(tmp_path):
    """A model with an adapter that is there and one that is not."""
    file, adapter = tmp_path / "talk.sim", tmp_path / "tuned.lora"
    file.write_text("rkllm-simulator 1\nprofile: instant\n")
    adapter.write_text("adapter")
    loras = [{"id": "tuned", "file": adapter, "scale": 0.5}, {"id": "lost", "file": tmp_path / "lost.lora"}]
    return [{"id": "talk", "file": file, "loras": loras}]


@in_loop
async def test_an_adapter_is_loaded_when_it_is_asked_for_first_and_its_cache_is_its_own(
    tmp_path, with_adapters
):
    long = "say: fine. " + "The window in the kitchen is open. " * 60
    async with dispatching(tmp_path, models=with_adapters) as kit:
        usages = []
        for name, lora in (("q1", None), ("q2", "tuned"), ("q3", "tuned"), ("q4", None)):
            await kit.ask(name, long, model="talk", lora=lora)
            final = await kit.final(name)
            assert final["status"] == "ok"
            assert final["model"] == ("talk" if lora is None else "talk:tuned")
            usages.append(final["usage"])
        cached = [usage["cached_tokens"] for usage in usages]
        assert cached[:2] == [0, 0]
        assert cached[2] > usages[2]["prompt_tokens"] * 0.8
        assert cached[3] == 0
        assert kit.slot.restarts == 0


@in_loop
async def test_an_adapter_that_is_not_there_costs_its_job_and_nobody_elses(tmp_path, with_adapters):
    async with dispatching(tmp_path, models=with_adapters) as kit:
        await kit.ask("bad", model="talk", lora="lost")
        await kit.ask("gone", model="talk", lora="removed")
        await kit.ask("good", model="talk")
        for name, said in (("bad", "lost.lora"), ("gone", "removed")):
            error = (await kit.final(name))["error"]
            assert (error["code"], bool(error["hint"])) == ("model_error", True)
            assert said in error["message"]
        assert (await kit.final("good"))["status"] == "ok"
        assert kit.slot.restarts == 0


# the pinned model


def pinned(kit):
    return kit.live.policy.tenancy


@in_loop
async def test_the_pinned_model_is_brought_back_when_the_others_have_nothing_to_do(tmp_path, model, loaded):
    models = [
        {"id": "talk", "file": model("talk"), "pinned": True},
        {"id": "code", "file": model("code")},
    ]
    async with dispatching(tmp_path, models=models) as kit:
        await kit.until(lambda: kit.slot.loaded == "talk")
        await kit.ask("q1", model="code")
        assert (await kit.final("q1"))["text"] == "code"
        await kit.until(lambda: kit.slot.loaded == "talk")
        assert loaded() == ["talk", "code", "talk"]


@in_loop
async def test_another_model_waits_until_the_voice_was_silent(tmp_path, model):
    models = [
        {"id": "talk", "file": model("talk"), "pinned": True},
        {"id": "code", "file": model("code")},
    ]
    async with dispatching(tmp_path, models=models, unpin_after_s=0.6) as kit:
        await kit.ask("voice", priority=Priority.INTERACTIVE)
        await kit.final("voice")
        spoken_at = kit.journal.now()
        await kit.ask("q1", model="code")
        await kit.ask("q2", model="talk", priority=Priority.BACKGROUND)
        await kit.final("q2")
        assert not kit.finals["q1"].done()
        assert kit.slot.wanted == "talk"
        assert (await kit.final("q1"))["text"] == "code"
        assert kit.journal.now() - spoken_at >= 0.5


@in_loop
async def test_a_voice_does_not_wait_for_the_work_of_others_to_get_its_model_back(tmp_path, model):
    models = [
        {"id": "talk", "file": model("talk"), "pinned": True},
        {"id": "code", "file": model("code")},
    ]
    async with dispatching(tmp_path, models=models) as kit:
        for number in range(30):
            await kit.ask(f"q{number}", model="code")
        await kit.final("q0")
        await kit.ask("voice", priority=Priority.INTERACTIVE)
        assert (await kit.final("voice"))["text"] == "talk"
        assert pinned(kit).model == "talk"


@in_loop
async def test_an_administrators_wish_keeps_the_pinned_model_away_for_a_while(tmp_path, model):
    models = [
        {"id": "talk", "file": model("talk"), "pinned": True},
        {"id": "code", "file": model("code")},
    ]
    async with dispatching(tmp_path, models=models, unpin_after_s=0.5) as kit:
        await kit.until(lambda: kit.slot.loaded == "talk")
        kit.dispatcher.load("code")
        await kit.until(lambda: kit.slot.loaded == "code")
        await kit.until(lambda: kit.slot.loaded == "talk")


# idleness


@in_loop
async def test_an_idle_model_is_unloaded_and_the_next_request_loads_it(tmp_path, model, loaded):
    async with dispatching(tmp_path, model("talk"), idle_unload_s=0.1) as kit:
        await kit.until(lambda: kit.slot.loaded)
        pid = kit.slot.pid
        await kit.until(lambda: kit.slot.unloaded and kit.slot.pid is None)
        assert (kit.slot.restarts, kit.slot.problem) == (0, None)
        await kit.ask("q1")
        assert (await kit.final("q1"))["text"] == "talk"
        assert kit.slot.pid != pid
        assert loaded() == ["talk", "talk"]
        await kit.until(lambda: kit.slot.unloaded)
        kit.dispatcher.load("talk")
        await kit.until(lambda: kit.slot.loaded)


@in_loop
async def test_a_model_that_works_or_is_pinned_is_not_unloaded(tmp_path, model):
    slow = tmp_path / "slow.sim"
    slow.write_text("rkllm-simulator 1\nprofile: instant\ndecode_ms_per_token: 10\n")
    async with dispatching(tmp_path, slow, idle_unload_s=0.05) as kit:
        await kit.ask("q1", "count to 40")
        assert (await kit.final("q1"))["attempt"] == 1
        await kit.until(lambda: kit.slot.unloaded)
    models = [{"id": "talk", "file": model("talk"), "pinned": True}]
    (tmp_path / "journal.db").unlink()
    async with dispatching(tmp_path, models=models, idle_unload_s=0.05) as kit:
        await kit.ask("q1")
        await kit.final("q1")
        await asyncio.sleep(0.2)  # four times as long as an idle model stays
        assert not kit.slot.unloaded
