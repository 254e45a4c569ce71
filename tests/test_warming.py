"""The promises of `warming`: what a question begins with is ready before it comes, never in its way."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from live_dispatcher import FILES, dispatching
from live_jobs import address, admit, make_job, request
from live_slot import in_loop

from rkllm_mqtt.config.catalogue import Entry
from rkllm_mqtt.core.chat import PrefixWish
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.registrations import Registrations
from rkllm_mqtt.renderers import open_kit
from rkllm_mqtt.warming import Warming

SYSTEM = {"role": "system", "content": "You are the voice of a house. " + "The lamp is on. " * 60}
OTHER = {"role": "system", "content": "You read meters. " + "The meter turns. " * 60}
MODEL = "rkllm-simulator 1\nfloor_ms: 2\nprefill_ms_per_token: 0.5\ndecode_ms_per_token: 1\njoins: stable\n"


def question(text="say: hello", system=SYSTEM):
    return (system, {"role": "user", "content": text})


class Kit:
    """A dispatcher whose idle slot is worked in."""

    def __init__(self, kit):
        self.kit = kit
        priming, wake = kit.dispatcher.priming, kit.dispatcher.wake
        priming._wake = lambda: (wake(), kit._moved.set())  # `until` shall hear of prime runs, too
        self.registrations = Registrations(kit.config, kit.live, kit.journal, kit.outcomes)
        self.warming = Warming(
            kit.config,
            kit.slot,
            kit.scheduler,
            kit.dispatcher.handover,
            kit.dispatcher.priming,
            self.registrations,
            kit.journal.now,
        )

    async def register(self, name, system=SYSTEM, client="app"):
        """Register a prefix that was registered long ago: there is no pause to wait for."""
        wish = PrefixWish("register", name, ttl_s=1_000.0)
        asked = request(messages=(system,), model="home", prefix=wish)
        job = await admit(self.kit.journal, make_job(asked, address(client, f"r-{name}"), id=f"r-{name}"))
        self.kit.live.add(job)
        assert self.registrations.take(job)
        await self.kit.final(job.id)
        self.registrations.prefixes.find(client, name).changed_at = float("-inf")
        self.kit.dispatcher.wake()

    async def ask(self, name, system=SYSTEM, text="say: hello", **fields):
        await self.kit.ask(name, messages=question(text, system), max_tokens=50, **fields)
        return (await self.kit.final(name))["usage"]

    async def until_warmed(self, runs):
        """Wait until so many prime runs of prefixes have ended."""
        await self.kit.until(lambda: self.warming.runs >= runs and not self.kit.dispatcher.priming.busy)


@asynccontextmanager
async def warming(folder, *, disk_mb=0, **policy):
    file = folder / "home.sim"
    file.write_text(MODEL)
    disk = {"disk_write_mb_per_day": disk_mb, "journal": {"path": folder / "journal.db"}} if disk_mb else {}
    async with dispatching(folder, file, policy=policy, probe_idle_s=None, **disk) as kit:
        await kit.until(lambda: kit.slot.loaded)
        if disk_mb:
            kit.scheduler.knowledge.learn("home", **FILES)
        kit.scheduler.knowledge.learn("home", reuses_finished=True, reuses_aborted=True, holds_generated=True)
        yield Kit(kit)


@in_loop
async def test_a_registered_prefix_is_ready_before_the_first_question(tmp_path):
    async with warming(tmp_path) as kit:
        assert kit.warming.told() is None
        await kit.register("voice")
        await kit.until_warmed(1)
        assert kit.warming.told() == {"client": "app", "name": "voice", "state": "warm"}
        usage = await kit.ask("q1")
        assert usage["prompt_tokens"] - usage["cached_tokens"] < 30


@in_loop
async def test_it_is_ready_again_after_foreign_work_and_only_once(tmp_path):
    async with warming(tmp_path) as kit:
        await kit.register("voice")
        await kit.until_warmed(1)
        await kit.ask("meter", OTHER)
        assert kit.warming.told()["state"] == "cold"
        await kit.until_warmed(2)
        assert kit.warming.told()["state"] == "warm"
        usage = await kit.ask("q1")
        assert usage["prompt_tokens"] - usage["cached_tokens"] < 30
        assert kit.warming.source() is None  # what the question left begins with it
        assert kit.warming.runs == 2


@in_loop
async def test_a_prefix_of_a_model_that_is_gone_or_changed_is_made_anew_when_it_is_back(tmp_path):
    async with warming(tmp_path) as kit:
        catalogue, kits = kit.kit.catalogue, kit.kit.kits
        catalogue.listen(kit.warming.models_changed)
        catalogue.listen(kits.models_changed)
        await kit.register("voice")
        await kit.until_warmed(1)
        (home,) = catalogue.entries
        other = tmp_path / "other.sim"
        other.write_text(MODEL)
        settings = home.settings.model_copy(update={"id": "other", "file": other})
        kits.put("other", open_kit(settings, 1.0))
        catalogue.put([Entry("other", settings)])
        assert kit.warming.source() is None, "nothing can be rendered for it"
        await kit.kit.until(lambda: kit.kit.slot.loaded == "other")
        quiet = home.settings.model_copy(update={"system": "Be brief."})
        kits.put("home", open_kit(quiet, 1.0))
        catalogue.put([Entry("home", quiet)])
        await kit.kit.until(lambda: kit.kit.slot.loaded == "home")
        await kit.until_warmed(2)
        assert kit.warming.told()["state"] == "warm"


@in_loop
async def test_what_is_expected_most_is_ready_of_two(tmp_path):
    async with warming(tmp_path) as kit:
        await kit.register("meter", OTHER)
        await kit.until_warmed(1)
        await kit.register("voice")
        voice = kit.registrations.prefixes.find("app", "voice")
        meter = kit.registrations.prefixes.find("app", "meter")
        for prefix, uses in ((voice, 20.0), (meter, 0.1)):
            prefix.uses.hours, prefix.uses.days = [uses] * 24, 4.0
            prefix.uses.day = -1
        kit.kit.dispatcher.wake()
        await kit.until_warmed(2)
        assert kit.warming.told() == {"client": "app", "name": "voice", "state": "warm"}


@in_loop
async def test_a_job_that_comes_ends_it_and_what_was_computed_helps(tmp_path):
    async with warming(tmp_path, prefill_chunk_tokens=64) as kit:
        await kit.register("voice")
        await kit.kit.until(lambda: kit.kit.dispatcher.priming.busy)
        usage = await kit.ask("q1", OTHER, priority=Priority.INTERACTIVE)
        assert usage["completion_tokens"] > 0
        await kit.until_warmed(2)
        assert kit.warming.told()["state"] == "warm"


@in_loop
async def test_a_beginning_that_nobody_registered_is_found_and_made_ready(tmp_path):
    async with warming(tmp_path) as kit:
        for number, text in enumerate(("say: one", "say: two two", "say: three three three", "say: four")):
            await kit.ask(f"q{number}", text=text)
        await kit.ask("meter", OTHER)
        await kit.until_warmed(1)
        usage = await kit.ask("q9", text="say: nine")
        assert usage["prompt_tokens"] - usage["cached_tokens"] < 30
        assert kit.warming.told() is None


@in_loop
async def test_nothing_is_made_ready_in_a_hold_for_somebody(tmp_path):
    async with warming(tmp_path) as kit:
        kit.kit.scheduler.holding._policy.hold("phone", 5.0, kit.kit.journal.now(), 0.0)
        await kit.register("voice")
        await kit.ask("q1", OTHER, priority=Priority.INTERACTIVE)  # ends the hold
        await kit.until_warmed(1)
        assert kit.kit.started() == ["q1"]


@in_loop
@pytest.mark.parametrize("facts", [{"reuses_finished": False}, {"reuses_finished": None}])
async def test_a_library_that_does_not_reuse_computes_nothing_in_vain(tmp_path, facts):
    async with warming(tmp_path) as kit:
        kit.kit.scheduler.knowledge.forget("home")
        kit.kit.scheduler.knowledge.learn("home", **facts)
        await kit.register("voice")
        assert kit.warming.source() is None


@in_loop
async def test_what_is_not_there_afterwards_is_not_computed_again_and_again(tmp_path):
    async with warming(tmp_path) as kit:
        await kit.register("voice")
        await kit.until_warmed(1)
        kit.kit.scheduler.forget_cache()
        assert kit.warming.told()["state"] == "cold"
        assert kit.warming.source() is None
        await kit.ask("q1", OTHER)
        await kit.until_warmed(2)


@in_loop
async def test_it_can_be_switched_off(tmp_path):
    async with warming(tmp_path, idle_warm=False) as kit:
        await kit.register("voice")
        assert kit.warming.source() is None
        assert kit.warming.told()["state"] == "cold"


@in_loop
async def test_who_gains_is_charged(tmp_path):
    async with warming(tmp_path) as kit:
        await kit.register("voice")
        await kit.until_warmed(1)
        line = kit.kit.live.waiting.lines[Priority.INTERACTIVE]
        assert line.used_s("app") > 0.1


@in_loop
async def test_a_prefix_that_has_just_changed_is_left_alone_for_a_while(tmp_path):
    async with warming(tmp_path) as kit:
        await kit.register("voice")
        prefix = kit.registrations.prefixes.find("app", "voice")
        prefix.changed_at = kit.kit.journal.now()
        assert kit.warming.source() is None
        prefix.changed_at -= 2.1
        assert kit.warming.source() is not None
        await asyncio.sleep(0)


@in_loop
async def test_the_file_of_a_prefix_goes_with_its_registration_unless_another_has_the_same(tmp_path):
    async with warming(tmp_path, disk_mb=10) as kit:
        cache, shelf = kit.kit.scheduler.cache, kit.kit.scheduler.cache.tiers["disk"]
        await kit.register("voice")
        await kit.register("same", client="twin")
        await kit.until_warmed(1)
        (file,) = shelf
        await kit.registrations.remove("app", "voice")
        kit.warming.told()
        assert list(shelf) == [file], "it is the other one's, too"
        await kit.registrations.remove("twin", "same")
        kit.warming.told()
        assert cache.told() == []
        assert not any(shelf.folder.iterdir())


@in_loop
async def test_a_prefix_that_is_replaced_takes_its_file_along(tmp_path):
    async with warming(tmp_path, disk_mb=10) as kit:
        shelf = kit.kit.scheduler.cache.tiers["disk"]
        await kit.register("voice")
        await kit.until_warmed(1)
        (old,) = shelf
        await kit.registrations.create("app", "voice", request(messages=(OTHER,), model="home"), 1_000.0)
        kit.registrations.prefixes.find("app", "voice").changed_at = float("-inf")
        kit.kit.dispatcher.wake()
        await kit.until_warmed(2)
        assert [file.path for file in shelf] != [old.path]
        assert len(shelf) == 1
