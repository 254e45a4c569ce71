"""The promise of `caching/prefixcache.py`: files make answers come sooner, and fail in nobody's way."""

import asyncio
import os
import resource
import signal
from contextlib import asynccontextmanager

import pytest
from live_dispatcher import FILES, dispatching
from live_jobs import address, admit, make_job, request
from live_slot import in_loop

from rkllm_mqtt.core.chat import PrefixWish
from rkllm_mqtt.core.job import Priority

PROBED = {"reuses_finished": True, "reuses_aborted": True, "holds_generated": True, **FILES}
PACE = "floor_ms: 1\nprefill_ms_per_token: 0.2\nkv_bytes_per_token: 100\n"
"""A prompt of these tests takes 0.1 s, and its file is loaded in no time."""


class Talk:
    """A conversation of one client, which sends all of it each time."""

    def __init__(self, kit, client, rules=60):
        self._kit, self.client = kit, client
        self.messages = [
            {"role": "system", "content": f"You help {client}. " + f"Be kind to {client}. " * rules}
        ]
        self._count = 0

    async def say(self, text, **fields):
        """Ask one more question; return the final."""
        self._count += 1
        self.messages.append({"role": "user", "content": f"say: {text}"})
        name = f"{self.client}{self._count}"
        asked = request("", model="own", max_tokens=100, messages=tuple(self.messages))
        job = make_job(asked, address(self.client, name), id=name, **fields)
        await admit(self._kit.journal, job)
        self._kit.live.add(job)
        self._kit.dispatcher.wake()
        final = await self._kit.final(name)
        assert final["text"] == text
        self.messages.append({"role": "assistant", "content": text})
        return final


@asynccontextmanager
async def caching(folder, *lines, facts=None, **settings):
    model = folder / "own.sim"
    if not model.exists():  # another model file has other keys and values
        model.write_text("\n".join(["rkllm-simulator 1", "profile: instant", PACE, *lines, ""]))
    memory = {"ram_cache_folder": folder / "memory", "ram_cache_mb": 10}
    memory["journal"] = {"path": folder / "journal.db"}
    async with dispatching(folder, model, **memory | settings) as kit:
        await kit.until(lambda: kit.slot.loaded)
        kit.cache = kit.scheduler.cache
        kit.scheduler.knowledge.learn("own", **PROBED | (facts or {}))
        kit.dispatcher.priming.sources.append(kit._moved.set)  # asked when nothing is left to save
        yield kit


async def saved(kit, count=1):
    """Wait until so many files were written."""
    await kit.until(lambda: kit.cache.counts.saves >= count and not kit.dispatcher.priming.busy)


def computed(final):
    usage = final["usage"]
    return usage["prompt_tokens"] - usage["cached_tokens"]


@in_loop
async def test_interleaved_conversations_of_four_clients_compute_only_what_is_new(tmp_path):
    async with caching(tmp_path) as kit:
        talks = [Talk(kit, name) for name in ("ann", "bob", "cem", "dia")]
        for number in range(3):
            for talk in talks:
                final = await talk.say(f"answer {number}")
                if number:
                    assert computed(final) < 0.25 * final["usage"]["prompt_tokens"]
        assert kit.cache.counts.restores == 8
        assert kit.cache.counts.failures == 0
        facts = kit.scheduler.knowledge.facts_of("own")
        assert (facts.load_s_per_mb, facts.save_s_per_mb) != (
            PROBED["load_s_per_mb"],
            PROBED["save_s_per_mb"],
        )
        assert {file["client"] for file in kit.cache.told()} >= {"ann", "bob", "cem", "dia"}


@in_loop
async def test_in_an_idle_slot_the_latest_state_of_a_conversation_takes_the_place_of_earlier_ones(tmp_path):
    async with caching(tmp_path) as kit:
        ann = Talk(kit, "ann")
        for number in range(3):
            await ann.say(f"answer {number}" + " and more" * 20)
            await saved(kit, number + 1)
        (file,) = kit.cache.told()
        assert (file["client"], file["tier"]) == ("ann", "memory")
        await Talk(kit, "bob").say("foreign")
        final = await ann.say("thanks")
        assert computed(final) < 60
        assert kit.cache.counts.restores == 1


@in_loop
async def test_what_many_prompts_begin_with_is_saved_although_no_conversation_goes_on(tmp_path):
    async with caching(tmp_path) as kit:
        for number in range(6):
            talk = Talk(kit, "house")
            talk.client, talk._count = f"sensor{number % 2}", number
            await talk.say(f"reading {number}")
        await Talk(kit, "bob").say("foreign")
        final = await Talk(kit, "house").say("fine")
        assert computed(final) < 60
        assert kit.cache.counts.restores


@pytest.mark.parametrize(
    "facts",
    [{"load_s_per_mb": None}, {"reuses_finished": None}, {"load_s_per_mb": 10_000.0}],
    ids=["nobody has probed files", "nobody has probed reuse", "loading is slower than computing"],
)
@in_loop
async def test_where_files_are_unknown_or_no_gain_none_are_written_and_none_are_loaded(tmp_path, facts):
    async with caching(tmp_path, facts=facts) as kit:
        ann, bob = Talk(kit, "ann"), Talk(kit, "bob")
        for number in range(2):
            await ann.say(f"answer {number}")
            await bob.say(f"answer {number}")
        assert (kit.cache.counts.saves, kit.cache.counts.restores) == (0, 0)
        assert kit.cache.told() == []


@pytest.mark.parametrize("fate", ["damaged", "truncated", "deleted", "of another model", "unreadable"])
@in_loop
async def test_a_file_that_cannot_be_loaded_is_removed_and_the_answer_comes_computed(tmp_path, fate):
    async with caching(tmp_path) as kit:
        ann = Talk(kit, "ann")
        await ann.say("first")
        await saved(kit)
        (path,) = (tmp_path / "memory").glob("*.kv")
        whole = path.read_bytes()
        if fate == "damaged":
            path.write_bytes(b"\0" * len(whole))
        elif fate == "truncated":
            path.write_bytes(whole[:1000])
        elif fate == "of another model":
            path.write_bytes(whole[:16] + b"\1\2\3\4" + whole[20:])
        else:
            path.unlink()
            if fate == "unreadable":
                path.mkdir()
        await Talk(kit, "bob").say("foreign", priority=Priority.INTERACTIVE)
        final = await ann.say("second")
        assert final["attempt"] == 1
        assert computed(final) == final["usage"]["prompt_tokens"]
        assert kit.cache.counts.failures == 1
        assert str(path) not in {file["file"] for file in kit.cache.told()}
        assert kit.cache.find(path.stem) is None


@in_loop
async def test_a_worker_that_is_killed_in_a_load_costs_the_file_and_no_attempt(tmp_path):
    async with caching(tmp_path, "cache_load_mb_s: 0.001", max_attempts=1, restart_max_s=0.1) as kit:
        ann = Talk(kit, "ann")
        await ann.say("first")
        await saved(kit)
        await Talk(kit, "bob").say("foreign", priority=Priority.INTERACTIVE)
        answering = asyncio.create_task(ann.say("second"))
        await kit.soon(lambda: any(turn.run.restoring for turn in kit.dispatcher.turns))
        (marked,) = (tmp_path / "memory").glob("*.loading")
        os.kill(kit.slot.pid, signal.SIGKILL)
        final = await answering
        assert final["status"] == "ok"
        assert kit.cache.counts.failures == 1
        assert kit.cache.find(marked.stem) is None
        assert not marked.with_suffix(".kv").exists()


@in_loop
async def test_behind_two_killed_workers_no_more_files_are_loaded(tmp_path):
    async with caching(tmp_path) as kit:
        ann = Talk(kit, "ann")
        await ann.say("first")
        await saved(kit)
        kit.cache._crashes[kit.scheduler.tracker.fingerprint("own", None)] = 2
        await Talk(kit, "bob").say("foreign", priority=Priority.INTERACTIVE)
        await ann.say("second")
        assert kit.cache.counts.restores == 0


@in_loop
async def test_a_disk_without_room_is_said_once_and_left_alone_for_a_while(tmp_path):
    async with caching(tmp_path) as kit:
        (tmp_path / "memory").write_text("in the way")
        ann, bob = Talk(kit, "ann"), Talk(kit, "bob")
        for number in range(2):
            await ann.say(f"answer {number}")
            await bob.say(f"answer {number}")
        assert kit.cache.counts.failures == 1
        assert kit.cache.counts.saves == 0


@in_loop
async def test_a_file_that_is_cut_short_by_a_full_disk_is_none(tmp_path, caplog):
    """The library's writes really end at a bound, as on a full disk."""
    async with caching(tmp_path) as kit:
        limits = resource.prlimit(kit.slot.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(kit.slot.pid, resource.RLIMIT_FSIZE, (4_000, limits[1]))
        ann, bob = Talk(kit, "ann"), Talk(kit, "bob")
        for number in range(2):
            await ann.say(f"answer {number}")
            await bob.say(f"answer {number}")
        assert (kit.cache.counts.failures, kit.cache.counts.saves, kit.cache.counts.restores) == (1, 0, 0)
        assert caplog.text.count("prompt_cache_not_written") == 1
        assert kit.cache.told() == []
        assert list((tmp_path / "memory").iterdir()) == []
        resource.prlimit(kit.slot.pid, resource.RLIMIT_FSIZE, limits)
        kit.cache._not_before = 0.0  # a minute later
        await ann.say("there is room again")
        await saved(kit)
        assert kit.cache.counts.failures == 1


@in_loop
async def test_what_the_file_system_has_no_room_for_is_not_begun(tmp_path, caplog):
    facts = {"bytes_per_token": 10**11, "load_s_per_mb": 1e-12, "save_s_per_mb": 1e-12}
    async with caching(tmp_path, facts=facts) as kit:
        kit.cache.tiers["memory"].budget_bytes = 10**16
        await Talk(kit, "ann").say("first")
        await Talk(kit, "bob").say("second")
        assert (kit.cache.counts.failures, kit.cache.counts.saves) == (1, 0)
        assert "MB are free" in str(caplog.records[-1].__dict__)
        assert list((tmp_path / "memory").iterdir()) == []


@in_loop
async def test_what_does_not_fit_the_budget_is_not_written(tmp_path):
    async with caching(tmp_path, facts={"bytes_per_token": 100_000}) as kit:
        await Talk(kit, "ann").say("first")
        await Talk(kit, "bob").say("second")
        assert kit.cache.counts.saves == 0


@in_loop
async def test_files_outlive_a_daemon_that_was_killed(tmp_path):
    async with caching(tmp_path) as kit:
        ann = Talk(kit, "ann")
        await ann.say("first")
        await saved(kit)
    async with caching(tmp_path) as kit:
        again = Talk(kit, "ann")
        again.messages, again._count = ann.messages, 10
        final = await again.say("second")
        assert computed(final) < 60
        assert kit.cache.counts.restores == 1


@in_loop
async def test_a_daemon_that_stops_gives_the_memory_back(tmp_path):
    async with caching(tmp_path) as kit:
        await Talk(kit, "ann").say("first")
        await saved(kit)
        kit.cache.close()
        assert kit.cache.told() == []
        assert not (tmp_path / "memory").exists()


@in_loop
async def test_no_save_is_made_in_front_of_a_voice_nor_of_work_of_a_higher_class(tmp_path):
    async with caching(tmp_path) as kit:
        kit.dispatcher.priming.sources.clear()  # nothing is saved in idle time
        await Talk(kit, "ann").say("first", priority=Priority.BACKGROUND)
        await Talk(kit, "bob").say("second", priority=Priority.NORMAL)
        await Talk(kit, "voice").say("third", priority=Priority.INTERACTIVE)
        await Talk(kit, "other").say("fourth", priority=Priority.INTERACTIVE)
        assert kit.cache.counts.saves == 0


@in_loop
async def test_a_save_in_front_of_others_is_charged_to_who_gains(tmp_path):
    async with caching(tmp_path) as kit:
        kit.dispatcher.priming.sources.clear()  # nothing is saved in idle time
        charged = []
        kit.live.policy.note = lambda kind, *values: charged.append(values[:2]) if kind == "charge" else None
        await Talk(kit, "ann").say("first")
        await Talk(kit, "bob").say("second")
        assert ("ann", Priority.NORMAL) in charged


@pytest.mark.parametrize(
    ("switch", "facts"),
    [
        ("reuse_generated: no", {"holds_generated": False}),
        ("reuse_aborted: no", {"reuses_aborted": False}),
        ("cache_load_replaces: no", {"load_replaces": False}),
        ("cache_stays: no", {"loaded_stays": False}),
        ("cache_stays: yes", {"loaded_stays": True}),
        ("reuse_granularity: 16", {"granularity": 16}),
        ("joins: stable", {}),
        ("aborted_run_saves: yes", {"aborted_saves": True}),
    ],
)
@in_loop
async def test_whatever_the_library_does_with_caches_conversations_in_turns_are_computed_once(
    tmp_path, switch, facts
):
    async with caching(tmp_path, switch, facts=facts) as kit:
        ann, bob = Talk(kit, "ann"), Talk(kit, "bob")
        for number in range(3):
            for talk in (ann, bob):
                final = await talk.say(f"answer {number}")
                if number:
                    assert computed(final) < 0.3 * final["usage"]["prompt_tokens"]
        assert kit.cache.counts.failures == 0


@pytest.mark.parametrize(("saves", "expected"), [("no", 0), ("yes", 1)])
@in_loop
async def test_a_runtime_that_needs_an_abort_saves_only_where_aborted_runs_do(tmp_path, saves, expected):
    facts = {"aborted_saves": saves == "yes"}
    async with caching(
        tmp_path, f"aborted_run_saves: {saves}", facts=facts, simulator_version="1.2.3"
    ) as kit:
        ann, bob = Talk(kit, "ann"), Talk(kit, "bob")
        for talk in (ann, bob, ann):
            await talk.say("fine")
        assert min(1, kit.cache.counts.restores) == expected


async def warm(kit, name):
    """Make the prefix of a house ready, as a client with a registration of this name does."""
    messages = (Talk(kit, "house").messages[0],)
    asked = request("", model="own", max_tokens=1, messages=messages, prefix=PrefixWish("warm", name))
    job = make_job(asked, address("house", f"w-{name}"), id=f"w-{name}", priority=Priority.INTERACTIVE)
    await admit(kit.journal, job)
    kit.live.add(job)
    kit.dispatcher.wake()
    return await kit.final(job.id)


@in_loop
async def test_a_registered_prefix_lies_on_the_disk_written_once_and_is_there_after_a_restart(tmp_path):
    async with caching(tmp_path) as kit:
        await warm(kit, "voice")
        (file,) = kit.cache.told()
        assert (file["tier"], file["client"]) == ("disk", None)
        written = kit.cache.ledger.written
        assert written == file["bytes"] > 0
        await Talk(kit, "bob").say("foreign", priority=Priority.INTERACTIVE)
        await warm(kit, "again")
        assert kit.cache.ledger.written == written
        assert kit.cache.counts.restores == 1
    async with caching(tmp_path) as kit:
        assert [file["tier"] for file in kit.cache.told() if file["client"] is None] == ["disk"]
        assert kit.cache.ledger.written == written
        assert computed(await Talk(kit, "house").say("fine")) < 60


@in_loop
async def test_beyond_the_bytes_of_a_day_a_registered_prefix_lies_in_memory_only(tmp_path):
    async with caching(tmp_path) as kit:
        kit.cache.ledger.write(500_000_000)
        await warm(kit, "voice")
        assert [file["tier"] for file in kit.cache.told()] == ["memory"]


@in_loop
async def test_who_has_registered_nothing_leaves_nothing_on_the_disk(tmp_path):
    async with caching(tmp_path) as kit:
        await warm(kit, None)
        await Talk(kit, "ann").say("first")
        await Talk(kit, "bob").say("second")
        assert {file["tier"] for file in kit.cache.told()} == {"memory"}
        assert not (tmp_path / "caches").exists()
