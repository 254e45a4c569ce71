"""The promise of `runtime/slot.py` against a worker that grows, stands still, or loads for ever."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from live_slot import MODELS, in_loop, running, slot_config

from rkllm_mqtt.core.errors import SlotLost

PLAIN, FAULTY = MODELS / "plain.sim", MODELS / "faulty.sim"


@in_loop
async def test_a_worker_that_grows_is_replaced_between_two_jobs(model, events):
    leaking = model('when "leak": fault leak 40 mb')
    async with running(slot_config(leaking, max_worker_growth_mb=60)) as live:
        pid = live.slot.pid
        await live.answer("say: the first run is the measure")
        await live.answer("leak")
        assert (live.slot.pid, live.slot.recycles) == (pid, 0)
        # The staged run is in the same worker: it ends there before the worker is replaced.
        grown, staged = live.ask("leak again"), live.ask("say: staged")
        await grown.end()
        assert live.slot.room == 0
        await staged.end()
        assert staged.text == "staged"
        await live.until(lambda slot: slot.loaded is None)
        await live.ready()
        assert live.slot.pid != pid
        assert (live.slot.recycles, live.slot.restarts) == (1, 0)
        assert await live.answer("say: fresh") == "fresh"
    recycled = [facts for name, facts in events if name == "worker_recycled"]
    assert [70 < facts["grown_mb"] < 100 for facts in recycled] == [True]


@in_loop
async def test_a_worker_may_grow_where_the_limit_is_off(model):
    async with running(slot_config(model('when "leak": fault leak 40 mb'), max_worker_growth_mb=0)) as live:
        pid = live.slot.pid
        for prompt in ("say: first", "leak", "leak"):
            await live.answer(prompt)
        assert (live.slot.pid, live.slot.recycles) == (pid, 0)


@pytest.mark.parametrize("wish", ["another model", "a new worker"])
@in_loop
async def test_who_wants_another_worker_does_not_wait_for_a_load_that_hangs(model, tmp_path, wish):
    # The first load hangs for ever, later ones do not.
    hanging = model(
        "on init: fault hang first 1 times", f"fault_state: {tmp_path / 'state'}", name="slow.sim"
    )
    async with running(slot_config(hanging, PLAIN, abort_grace_s=0.3), wait=False) as live:
        slot = await live.until(lambda slot: slot.loading_since is not None)
        await asyncio.shield(slot._worker.hello)  # from here on it is inside rkllm_init
        first = slot.pid
        if wish == "another model":
            slot.use("plain")
        else:
            slot.restart()
        await live.ready()
        assert slot.pid != first
        assert slot.loaded == ("plain" if wish == "another model" else "slow")
        assert (slot.problem, slot.setbacks.load_failures, slot.restarts) == (None, 0, 0)
        assert not Path(f"/proc/{first}").exists()


@in_loop
async def test_a_worker_that_does_not_begin_a_run_is_replaced():
    async with running(slot_config(PLAIN, stall_timeout_s=0.3, abort_grace_s=0.2)) as live:
        await live.answer("say: alive")
        first = live.slot.pid
        os.kill(first, signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, first, os.WSTOPPED | os.WNOWAIT)  # each of its threads
        frozen = live.ask("say: never")
        with pytest.raises(SlotLost):
            await frozen.end()
        assert frozen.run.stalled == "the library was silent for too long before it began"
        await live.ready()
        assert live.slot.pid != first
        assert await live.answer("say: alive again") == "alive again"


@in_loop
async def test_a_staged_run_may_wait_for_the_one_before_it_without_a_clock_of_its_own():
    async with running(slot_config(FAULTY, stall_timeout_s=1)) as live:
        # Two seconds and more of tokens, each in time.
        first, staged = live.ask("endless", max_tokens=1500), live.ask("say: staged")
        await first.end()
        await staged.end()
        assert (first.run.stalled, staged.run.stalled) == (None, None)
        assert staged.text == "staged"


@in_loop
async def test_what_is_beyond_its_clocks_is_known_and_what_is_in_time_is_not_suspected():
    async with running(slot_config(FAULTY, stall_timeout_s=2)) as live:
        now = asyncio.get_running_loop().time
        assert live.slot.overdue(now()) is None
        asked = live.ask("endless", max_tokens=100_000)
        await asked.first_token()
        assert live.slot.overdue(now()) is None
        assert live.slot.overdue(now() + 60) == "a run is beyond all of its clocks"
        asked.run.abort()
        await asked.end()
        assert live.slot.overdue(now() + 60) is None


@in_loop
async def test_a_load_that_should_have_been_given_up_is_overdue():
    async with running(slot_config(MODELS / "slow_load.sim", load_timeout_s=20), wait=False) as live:
        slot = await live.until(lambda slot: slot.loading_since is not None)
        assert slot.overdue(slot.loading_since + 20) is None
        assert slot.overdue(slot.loading_since + 60) == "a load is beyond its time"


# a changed configuration


@in_loop
async def test_changed_clocks_count_for_the_next_run():
    config = slot_config(FAULTY, stall_timeout_s=600, abort_grace_s=0.2)
    async with running(config) as live:
        pid = live.slot.pid
        runtime = config.runtime.model_copy(update={"stall_timeout_s": 0.3})
        live.slot.apply(config.model_copy(update={"runtime": runtime}))
        with pytest.raises(SlotLost):
            await live.ask("hang soon").end()
        await live.ready()
        assert live.slot.pid != pid


@pytest.mark.parametrize(("version", "is_loaded_anew"), [("1.3.1", False), ("1.2.3", True)])
@in_loop
async def test_a_longer_answer_needs_a_new_load_where_the_runtime_has_a_fixed_limit(version, is_loaded_anew):
    config = slot_config(FAULTY, simulator_version=version, limits={"max_tokens": 50})
    async with running(config) as live:
        pid = live.slot.pid
        asked = live.ask("endless", max_tokens=40)
        await asked.first_token()
        limits = config.limits.model_copy(update={"max_tokens": 200})
        live.slot.apply(config.model_copy(update={"limits": limits}))
        assert live.slot.pid == pid  # not while something runs
        assert live.slot.room == (0 if is_loaded_anew else 1)
        await asked.end()
        await live.until(lambda slot: slot.loaded and (slot.pid != pid) == is_loaded_anew)
        longer = live.ask("endless", max_tokens=150)
        assert (await longer.end()).tokens == 150
