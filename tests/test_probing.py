"""The promise of `probing.py`: what the runtime does is learned when nobody needs it, once, and is kept."""

import json
import os
import signal
from contextlib import asynccontextmanager

import pytest
from live_dispatcher import dispatching
from live_slot import in_loop

from rkllm_mqtt.core.probes import STEPS
from rkllm_mqtt.knowledge import Knowledge
from rkllm_mqtt.probing import build_probing


@pytest.fixture
def model(tmp_path):
    def write(*lines):
        path = tmp_path / "plain.sim"
        path.write_text("\n".join(["rkllm-simulator 1", "profile: instant", *lines, ""]))
        return path

    return write


class Probed:
    """A dispatcher whose idle slot is probed."""

    def __init__(self, kit):
        self.kit, self.slot, self.meta = kit, kit.slot, kit.journal.meta
        self.folder = kit.config.journal.path.parent / "probe"
        kit.dispatcher.priming._wake = kit._wake  # the kit looks at what it waits for
        self.probing = build_probing(kit.config, kit.slot, kit.scheduler, kit.dispatcher.priming)
        kit.dispatcher.wake()

    @property
    def facts(self):
        return self.kit.scheduler.knowledge.facts_of("plain")

    @property
    def kept(self):
        return json.loads(self.meta.get("facts:plain", '{"done": [], "begun": {}}'))

    async def done(self):
        await self.kit.until(lambda: self.kept["done"] == list(STEPS))

    async def busy(self):
        """Wait until a step runs."""
        await self.kit.until(lambda: self.slot.loaded)
        await self.kit.soon(lambda: self.kit.dispatcher.priming.busy)


@asynccontextmanager
async def probing(folder, file, idle_s=0.01, **settings):
    settings["journal"] = {"path": folder / "journal.db"}
    async with dispatching(folder, file, probe_idle_s=idle_s, **settings) as kit:
        yield Probed(kit)


@in_loop
async def test_an_idle_slot_is_probed_once_and_the_facts_survive_a_restart(tmp_path, model):
    file = model("reuse_granularity: 4")
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "saved.cache").write_text("of before a power cut")
    async with probing(tmp_path, file) as probed:
        await probed.done()
        facts = probed.facts
        assert (facts.reuses_finished, facts.granularity, facts.can_restore) == (True, 4, True)
        assert not probed.folder.exists()
        assert probed.probing.reasons == []
        assert probed.probing.told("plain")["probed"]
    async with probing(tmp_path, file) as probed:
        assert probed.facts == facts
        await probed.kit.ask("q")
        await probed.kit.final("q")
        assert probed.probing.source() is None
        assert probed.slot.last_run == 1


@in_loop
async def test_without_a_time_nothing_is_probed_until_somebody_asks(tmp_path, model):
    async with probing(tmp_path, model(), idle_s=None) as probed:
        await probed.kit.until(lambda: probed.slot.loaded)
        assert probed.probing.source() is None
        probed.probing.again("plain")
        await probed.done()
        probed.kit.scheduler.knowledge.learn("plain", granularity=512)
        probed.probing.again("plain")
        await probed.kit.until(lambda: probed.facts.granularity == 1)


@in_loop
async def test_a_job_ends_the_step_under_way_and_the_probe_goes_on_behind_it(tmp_path, model):
    file = model("prefill_ms_per_token: 2")  # half a second each
    async with probing(tmp_path, file) as probed:
        await probed.busy()
        assert probed.folder.exists()
        await probed.kit.ask("q", "say: hello")
        assert (await probed.kit.final("q"))["text"] == "hello"
        assert probed.slot.restarts == 0
        await probed.kit.until(lambda: probed.kept["begun"] == {} and not probed.folder.exists())
        assert probed.kept["done"] == []
        await probed.busy()


@in_loop
async def test_a_stop_in_the_middle_of_a_step_does_not_count_against_it(tmp_path, model):
    async with probing(tmp_path, model("prefill_ms_per_token: 2")) as probed:
        await probed.busy()
        assert sum(probed.kept["begun"].values()) == 1
    assert probed.kept["begun"] == {}
    assert not probed.folder.exists()


@in_loop
async def test_a_library_that_dies_in_a_step_is_never_asked_that_again(tmp_path, model):
    # The first run of a process is the first one of the step that is asked.
    file = model("on run 12: fault abort")
    async with probing(tmp_path, file) as probed:
        await probed.kit.until(lambda: probed.probing.reasons)
        failed = probed.probing.told("plain")["failed"]
        assert failed == ["files"]
        assert probed.facts.can_reuse
        assert not probed.facts.can_restore
        assert "again" in probed.probing.reasons[0].hint
        await probed.kit.until(lambda: probed.slot.loaded)
        await probed.kit.ask("q")
        assert (await probed.kit.final("q"))["text"] == "hello"
        assert probed.slot.restarts == 1
        assert Knowledge(probed.slot, probed.kit.journal).failed_steps("plain") == ("files",)
        assert probed.probing.source() is None


@in_loop
async def test_a_worker_that_is_killed_leaves_no_files_behind(tmp_path, model):
    async with probing(tmp_path, model("prefill_ms_per_token: 2")) as probed:
        await probed.busy()
        os.kill(probed.slot.pid, signal.SIGKILL)
        await probed.kit.until(lambda: probed.probing.reasons)
        assert not probed.folder.exists()


@in_loop
async def test_a_step_that_ended_twice_with_the_power_is_not_begun_a_third_time(tmp_path, model):
    async with probing(tmp_path, model(), idle_s=None) as probed:
        await probed.kit.until(lambda: probed.slot.loaded)
        for left in ("reuse", "aborted"):
            await probed.kit.scheduler.knowledge.begin("plain", "reuse")
            assert Knowledge(probed.slot, probed.kit.journal).next_step("plain") == left


@in_loop
async def test_a_folder_that_cannot_be_made_costs_the_probe_and_nothing_else(tmp_path, model):
    (tmp_path / "probe").write_text("somebody else's")
    async with probing(tmp_path, model()) as probed:
        await probed.kit.until(lambda: probed.slot.loaded)
        await probed.kit.soon(lambda: probed.probing._idle_s is None)
        assert probed.probing.source() is None
        assert probed.kept["done"] == []
        await probed.kit.ask("q")
        assert (await probed.kit.final("q"))["text"] == "hello"


@in_loop
async def test_a_home_that_never_rests_for_long_is_probed_in_a_shorter_moment(tmp_path, model):
    async with probing(tmp_path, model(), idle_s=1000) as probed:
        await probed.kit.until(lambda: probed.slot.loaded)
        for number in range(20):
            assert probed.probing.source() is None  # the slot is idle: the time begins
            await probed.kit.ask(f"q{number}")
            await probed.kit.final(f"q{number}")
            probed.probing._fall_due()
        await probed.done()


@in_loop
async def test_batches_and_windows_without_room_are_not_probed(tmp_path, model):
    async with probing(tmp_path, model(), context_tokens=256) as probed:
        await probed.kit.until(lambda: probed.slot.loaded)
        probed.probing.again("plain")
        assert probed.probing.source() is None
    async with probing(tmp_path, model(), n_batch=2) as probed:
        await probed.kit.until(lambda: probed.slot.loaded)
        probed.probing.again("plain")
        assert probed.probing.source() is None


@pytest.mark.parametrize(
    "switches",
    [
        (),
        ("reuse: no",),
        ("reuse_aborted: no", "reuse_generated: no", "cache_load_replaces: no", "cache_stays: no"),
        ("reuse_granularity: 32", "joins: stable", "aborted_run_saves: yes", "fail_after_abort: 2"),
    ],
)
@in_loop
async def test_whatever_the_library_does_the_answers_and_what_is_told_of_them_are_true(
    tmp_path, model, switches
):
    house = "The house has " + ", ".join(f"room {number}" for number in range(300)) + ". "
    async with probing(tmp_path, model(*switches), policy={"prefill_chunk_tokens": 64}) as probed:
        kit = probed.kit
        await kit.until(lambda: probed.probing.told("plain")["probed"])
        reuses = probed.facts.can_reuse
        assert reuses is ("reuse: no" not in switches)
        stopped = await kit.ask("stopped", house + "story 9000 tokens")
        await kit.running("stopped")
        await kit.dispatcher.cancel(stopped)
        prompts = {"a": "say: one", "b": "say: two", "c": "say: three"}
        for name, prompt in prompts.items():
            await kit.ask(name, house + prompt)
            final = await kit.final(name)
            assert final["text"] == prompt[5:]
            usage = final["usage"]
            assert usage["prompt_tokens"] > 800
            if not reuses:
                assert usage["cached_tokens"] == 0
            elif name == "c":  # behind a finished run of nearly the same prompt
                assert usage["cached_tokens"] > 700
