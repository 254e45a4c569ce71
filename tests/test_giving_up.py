"""What becomes of jobs whose model comes, goes or breaks while the daemon runs, and of the slot."""

import os

from live_dispatcher import dispatching
from live_slot import MODELS, in_loop

from rkllm_mqtt.config.catalogue import Entry
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.renderers import open_kit

SIM = "rkllm-simulator 1\nprofile: instant\n"
LONG_AGO = 1_700_000_000


def told(name):
    return SIM + f'always: reply "{name}"\n'


def with_file(entry_of, path, text, **settings):
    path.write_text(text)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return Entry(path.stem, entry_of.model_copy(update={"id": path.stem, "file": path, **settings}))


@in_loop
async def test_a_model_that_comes_answers_and_one_that_goes_takes_its_jobs_with_it(tmp_path):
    async with dispatching(tmp_path, MODELS / "plain.sim") as kit:
        plain = kit.catalogue.entries[0]
        code = with_file(plain.settings, tmp_path / "code.sim", told("code"))
        kit.kits.put("code", open_kit(code.settings, 2.0))
        kit.catalogue.put([plain, code])
        await kit.ask("q1", model="code")
        assert (await kit.final("q1"))["text"] == "code"
        assert kit.slot.loaded == "code"
        kit.dispatcher.paused = True
        await kit.ask("q2", model="code")
        await kit.ask("q3")
        kit.catalogue.put([plain])
        error = (await kit.final("q2"))["error"]
        assert (error["code"], "removed" in error["message"]) == ("model_error", True)
        assert "plain" in error["hint"]
        kit.dispatcher.paused = False
        kit.dispatcher.wake()
        assert (await kit.final("q3"))["text"] == "hello"
        assert kit.slot.loaded == "plain"


@in_loop
async def test_the_slot_leaves_a_model_that_is_gone_when_nothing_else_is_to_be_done(tmp_path):
    async with dispatching(tmp_path, MODELS / "plain.sim") as kit:
        await kit.until(lambda: kit.slot.loaded == "plain")
        new = with_file(kit.catalogue.entries[0].settings, tmp_path / "new.sim", told("new"))
        kit.kits.put("new", open_kit(new.settings, 2.0))
        kit.catalogue.put([new])
        await kit.until(lambda: kit.slot.loaded == "new")
        assert kit.slot.restarts == 0


@in_loop
async def test_a_run_ends_well_although_its_model_is_gone(tmp_path):
    async with dispatching(tmp_path, MODELS / "plain.sim") as kit:
        plain = kit.catalogue.entries[0]
        new = with_file(plain.settings, tmp_path / "new.sim", told("new"))
        kit.kits.put("new", open_kit(new.settings, 2.0))
        await kit.ask("q1", "count to 60")
        await kit.running("q1")
        kit.catalogue.put([new])
        assert (await kit.final("q1"))["text"].endswith("60.")
        await kit.until(lambda: kit.slot.loaded == "new")


@in_loop
async def test_an_answer_that_gave_way_ends_where_its_model_is_gone_meanwhile(tmp_path):
    slow = tmp_path / "slow.sim"
    slow.write_text(SIM + "decode_ms_per_token: 10\n")
    async with dispatching(tmp_path, slow) as kit:
        new = with_file(kit.catalogue.entries[0].settings, tmp_path / "new.sim", told("new"))
        kit.kits.put("new", open_kit(new.settings, 2.0))
        await kit.ask("low", "count to 60", priority=Priority.BACKGROUND)
        await kit.running("low")
        kit.catalogue.put([new])
        await kit.ask("voice", model="new", priority=Priority.INTERACTIVE)
        assert (await kit.final("voice"))["text"] == "new"
        assert (await kit.final("low"))["error"]["code"] == "model_error"


@in_loop
async def test_jobs_of_a_model_that_breaks_end_and_a_loaded_one_serves_on(tmp_path):
    fault = Fault(Code.MODEL_ERROR, "is empty", "Copy it again.")
    async with dispatching(tmp_path, MODELS / "plain.sim") as kit:
        await kit.until(lambda: kit.slot.loaded == "plain")
        plain = kit.catalogue.entries[0]
        code = with_file(plain.settings, tmp_path / "code.sim", told("code"))
        kit.kits.put("code", open_kit(code.settings, 2.0))
        kit.catalogue.put([plain, code])
        kit.dispatcher.paused = True
        await kit.ask("q1", model="code")
        kit.catalogue.put([Entry("plain", plain.settings, fault), Entry("code", code.settings, fault)])
        error = (await kit.final("q1"))["error"]
        assert (error["message"], error["hint"]) == ("is empty", "Copy it again.")
        kit.dispatcher.paused = False
        await kit.ask("q2")
        assert (await kit.final("q2"))["text"] == "hello"


@in_loop
async def test_other_settings_of_the_loaded_model_load_it_anew_between_two_jobs(tmp_path):
    async with dispatching(tmp_path, MODELS / "plain.sim") as kit:
        await kit.until(lambda: kit.slot.loaded == "plain")
        plain, pid = kit.catalogue.entries[0], kit.slot.pid
        kit.catalogue.put([Entry("plain", plain.settings.model_copy(update={"system": "Be brief."}))])
        assert kit.slot.pid == pid, "the library knows nothing of that"
        kit.catalogue.put([Entry("plain", plain.settings.model_copy(update={"context_tokens": 512}))])
        await kit.until(lambda: kit.slot.loaded and kit.slot.pid not in (None, pid))
        await kit.ask("q1", "word " * 4_000)
        assert "the model 512" in (await kit.final("q1"))["error"]["message"]
