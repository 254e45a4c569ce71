"""The promise of `runtime/slot.py`: whatever the library does, the slot says so and is soon usable again."""

import asyncio
import json
import os
import resource
import signal

import pytest
from live_slot import MODELS, LiveSlot, in_loop, running, slot_config

from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.runtime.run import EndReason

PLAIN, FAULTY = MODELS / "plain.sim", MODELS / "faulty.sim"


@in_loop
async def test_a_prompt_is_answered_and_the_slot_knows_what_it_runs_on():
    async with running(slot_config(PLAIN)) as live:
        slot = live.slot
        assert (slot.loaded, slot.room, slot.problem, slot.restarts) == ("plain", 2, None, 0)
        assert slot.ready_since is not None
        assert await live.answer("say: hello") == "hello"
        facts = slot.facts
        assert (facts.version, facts.abi, facts.simulated, facts.warnings) == ("1.3.1", "F", True, ())
        assert facts.capabilities["per_run_sampling"]
        assert facts.output["platform"] == "RK3588"
        assert facts.output["driver"] == "0.9.8"
    assert slot.pid is None


@in_loop
async def test_a_staged_run_begins_while_the_daemon_looks_away(tmp_path, monkeypatch):
    # A FIFO: reading it holds this whole process, so whatever is traced meanwhile needed nothing of us.
    trace = tmp_path / "trace"
    os.mkfifo(trace)
    monkeypatch.setenv("RKLLM_SIM_TRACE", str(trace))
    descriptor = os.open(trace, os.O_RDWR)
    with os.fdopen(descriptor) as lines:
        async with running(slot_config(PLAIN)) as live:
            first, second = live.ask("say: one"), live.ask("say: two")
            assert live.slot.room == 0
            assert [json.loads(lines.readline())["run"] for _ in range(2)] == [1, 2]
            assert not first.run.started.done()
            await asyncio.wait([first.run.ended, second.run.ended])
            assert (first.text, second.text) == ("one", "two")


@in_loop
async def test_no_more_than_two_runs_are_taken_and_none_while_nothing_is_loaded():
    async with running(slot_config(FAULTY), wait=False) as live:
        with pytest.raises(SlotLost):
            live.ask("too early")
        await live.ready()
        running_one, staged = live.ask("endless"), live.ask("say: staged")
        with pytest.raises(SlotLost):
            live.ask("one too many")
        staged.run.revoke()
        assert (await staged.end()).reason is EndReason.REVOKED
        assert staged.run.started.cancelled()
        assert live.slot.room == 1
        await running_one.first_token()
        running_one.run.abort()
        assert (await running_one.end()).reason is EndReason.ABORTED
        assert running_one.text
        assert live.slot.room == 2


@in_loop
async def test_a_crash_ends_the_running_run_and_the_staged_one_never_began():
    async with running(slot_config(FAULTY)) as live:
        pid = live.slot.pid
        crashed, staged = live.ask("segfault"), live.ask("say: staged")
        with pytest.raises(SlotLost, match="the model process ended") as caught:
            await crashed.end()
        assert not caught.value.deliberate
        assert crashed.run.started.done()
        assert not crashed.run.started.cancelled()
        with pytest.raises(SlotLost):
            await staged.end()
        assert staged.run.started.cancelled()
        assert live.slot.loaded is None
        await live.ready()
        assert live.slot.pid != pid
        assert live.slot.restarts == 1
        assert live.slot.problem is None
        assert await live.answer("say: fine again") == "fine again"


@in_loop
async def test_what_the_library_cries_in_its_crash_is_logged(events):
    async with running(slot_config(FAULTY)) as live:
        with pytest.raises(SlotLost):
            await live.ask("assert").end()
        await live.ready()
    cried = [facts["line"] for name, facts in events if name == "library_fails"]
    assert len(cried) == 1
    assert "GGML_ASSERT" in cried[0]
    lost = next(facts for name, facts in events if name == "worker_lost")
    assert lost["exit"] == -signal.SIGABRT


@in_loop
async def test_nothing_that_is_said_to_the_model_or_by_it_is_logged(events):
    async with running(slot_config(PLAIN, log_level=2)) as live:
        await live.answer("say: the secret word")
    assert "library_says" in {name for name, _ in events}
    assert not [facts for facts in events if "secret" in str(facts)]


@in_loop
async def test_a_hang_is_ended_by_the_grace_of_an_abort():
    # The silence after the first token is the hang itself, so the abort that follows it comes in the hang.
    async with running(slot_config(FAULTY, abort_grace_s=0.2, stall_timeout_s=0.3)) as live:
        hanging = live.ask("hang soon")
        with pytest.raises(SlotLost, match="did not answer an abort in time"):
            await hanging.end()
        await live.ready()
        assert await live.answer("say: fine again") == "fine again"


@in_loop
async def test_a_stall_is_noticed_and_the_run_aborted():
    async with running(slot_config(FAULTY, stall_timeout_s=0.2)) as live:
        stalled = live.ask("pause")
        assert (await stalled.end()).reason is EndReason.ABORTED
        assert "silent for too long" in stalled.run.stalled
        assert await live.answer("say: fine again") == "fine again"
        assert live.slot.restarts == 0


@in_loop
async def test_a_run_that_takes_too_long_is_aborted():
    async with running(slot_config(FAULTY, run_timeout_s=0.3)) as live:
        endless = live.ask("endless", max_tokens=100_000)
        assert (await endless.end()).reason is EndReason.ABORTED
        assert endless.run.timed_out


@in_loop
async def test_an_error_of_the_library_replaces_the_worker_and_the_staged_run_never_began():
    async with running(slot_config(FAULTY)) as live:
        pid = live.slot.pid
        wrong, staged = live.ask("go wrong"), live.ask("say: staged")
        end = await wrong.end()
        assert end.reason is EndReason.ERROR
        assert end.message
        with pytest.raises(SlotLost):
            await staged.end()
        assert staged.run.started.cancelled()
        await live.ready()
        assert live.slot.pid != pid


@in_loop
async def test_a_garbage_frame_of_the_worker_is_its_end_and_loses_no_run():
    async with running(slot_config(FAULTY)) as live:
        asked = live.ask("endless")
        await asked.first_token()
        # What asyncio does with bytes from the socketpair.
        live.slot._worker.data_received(b'{"t": "done", "gen": 1, "reason": "bored"}\n')
        with pytest.raises(SlotLost, match="cannot be read"):
            await asked.end()
        await live.ready()


@in_loop
async def test_a_late_frame_of_an_ended_run_is_dropped():
    async with running(slot_config(PLAIN)) as live:
        first = live.ask("say: one")
        await first.end()
        live.slot._worker.data_received(b'{"t": "tokens", "gen": 1, "n": 99, "d": ["late"]}\n')
        live.slot._worker.data_received(b'{"t": "done", "gen": 1, "reason": "stop"}\n')
        assert first.text == "one"
        assert await live.answer("say: two") == "two"


# loading


async def failed(live: LiveSlot):
    slot = await live.until(lambda slot: slot.problem)
    assert slot.loaded is None
    assert slot.problem.serious
    assert slot.problem.code == "model_error"
    return slot.problem


@in_loop
async def test_a_load_that_fails_says_what_the_library_said_and_what_to_do(model):
    async with running(slot_config(model("max_context: 1024")), wait=False) as live:
        problem = await failed(live)
        assert "max_context[4096] must be less than the model's max_context_limit[1024]" in problem.message
        assert "context_tokens" in problem.hint


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["on init: fault null"], "no handle"),
        (["on init: fault segv"], "the model process ended"),
        (["on init: fault abort"], "GGML_ASSERT"),
        (["a key that does not exist: 1"], "model.sim"),
    ],
)
@in_loop
async def test_every_failure_of_a_load_is_a_reason(model, lines, said):
    async with running(slot_config(model(*lines)), wait=False) as live:
        problem = await failed(live)
        assert said in problem.message
        assert problem.hint


@in_loop
async def test_a_load_that_takes_too_long_is_given_up():
    config = slot_config(MODELS / "slow_load.sim", load_timeout_s=0.5, restart_max_s=0.05)
    async with running(config, wait=False) as live:
        problem = await failed(live)
        assert "did not load in time" in problem.message
        assert "load_timeout_s" in problem.hint
        await live.until(
            lambda slot: slot.setbacks.load_failures == 2
        )  # its process was ended, and another tried
        assert live.slot.pid is None


@in_loop
async def test_a_missing_model_is_loaded_at_once_when_its_file_appears(tmp_path):
    file = tmp_path / "late.sim"
    async with running(slot_config(file, restart_max_s=3600), wait=False) as live:
        live.slot.setbacks.load_failures = 12  # from here on the pause is far longer than this test may take
        problem = await failed(live)
        assert "late.sim" in problem.message
        file.write_bytes(PLAIN.read_bytes())
        await live.ready()
        assert (live.slot.problem, live.slot.setbacks.load_failures) == (None, 0)
        assert await live.answer("say: here") == "here"


@in_loop
async def test_failed_loads_follow_each_other_more_and_more_slowly(tmp_path, events):
    async with running(slot_config(tmp_path / "missing.sim", restart_max_s=1.5), wait=False) as live:
        await live.until(lambda slot: slot.setbacks.load_failures == 3)
        await live.until(lambda slot: slot.loading_since is None)
    pauses = [facts["seconds"] for name, facts in events if name == "worker_restart_waits"]
    assert pauses[:2] == [0.5, 1.0]
    assert set(pauses[2:]) <= {1.5}


@in_loop
async def test_a_worker_that_dies_again_and_again_is_restarted_more_slowly(events):
    async with running(slot_config(FAULTY, restart_max_s=0.2)) as live:
        for _ in range(5):
            await live.ready()
            with pytest.raises(SlotLost):
                await live.ask("segfault").end()
        await live.ready()
        assert live.slot.restarts == 5
        paused = [facts["seconds"] for name, facts in events if name == "worker_restart_waits"]
        assert paused == [0.2, 0.2]  # three restarts are free
        await live.answer("say: a finished run")
        with pytest.raises(SlotLost):
            await live.ask("segfault").end()
        await live.ready()
        assert len([name for name, _ in events if name == "worker_restart_waits"]) == 2


@in_loop
async def test_errors_of_the_library_count_as_losses_and_not_as_finished_runs(events):
    async with running(slot_config(FAULTY, restart_max_s=0.1)) as live:
        for _ in range(4):
            await live.ready()
            assert (await live.ask("go wrong").end()).reason is EndReason.ERROR
            await live.until(lambda slot: slot.loaded is None)
        await live.ready()
    assert "worker_restart_waits" in {name for name, _ in events}


@in_loop
async def test_a_system_that_has_no_room_for_a_process_is_a_reason_and_no_end(events):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    live = LiveSlot(slot_config(PLAIN, restart_max_s=0.05))
    lowest = os.dup(0)
    os.close(lowest)
    task = asyncio.create_task(live.slot.run())
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        problem = await failed(live)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "no process can be started" in problem.message
    await live.ready()
    assert live.slot.problem is None
    await live.slot.close()
    await task


# replacing the worker


@in_loop
async def test_a_restart_that_is_wanted_is_no_fault_of_the_runs_in_the_worker():
    async with running(slot_config(FAULTY)) as live:
        pid = live.slot.pid
        running_one, staged = live.ask("endless"), live.ask("say: staged")
        await running_one.first_token()
        live.slot.restart()
        for asked in (running_one, staged):
            with pytest.raises(SlotLost) as caught:
                await asked.end()
            assert caught.value.deliberate
        await live.ready()
        assert live.slot.pid != pid
        assert live.slot.restarts == 0


@in_loop
async def test_a_run_that_its_sender_aborts_ends_so_although_the_worker_is_replaced():
    async with running(slot_config(FAULTY)) as live:
        asked = live.ask("endless")
        await asked.first_token()
        asked.run.abort()
        live.slot.restart()
        assert (await asked.end()).reason is EndReason.ABORTED
        await live.ready()


@in_loop
async def test_another_model_is_loaded_in_a_process_of_its_own(model):
    other = model('always: reply "I am the other"', name="other.sim")
    async with running(slot_config(PLAIN, other)) as live:
        assert live.slot.wanted == "plain"
        pid = live.slot.pid
        live.slot.use("plain")
        assert live.slot.loaded == "plain"
        live.slot.use("other")
        assert live.slot.loaded is None
        await live.ready()
        assert live.slot.loaded == "other"
        assert live.slot.pid != pid
        assert await live.answer("who?") == "I am the other"


@in_loop
async def test_the_troubles_of_one_model_are_not_those_of_the_next(tmp_path):
    config = slot_config(tmp_path / "missing.sim", PLAIN, restart_max_s=3600)
    async with running(config, wait=False) as live:
        await failed(live)
        live.slot.use("plain")
        assert (live.slot.problem, live.slot.setbacks.load_failures) == (None, 0)
        await live.ready()


# the end


@in_loop
async def test_a_daemon_that_falls_leaves_no_worker_behind():
    live = LiveSlot(slot_config(FAULTY))
    task = asyncio.create_task(live.slot.run())
    await live.ready()
    asked = live.ask("endless")
    await asked.first_token()
    worker = live.slot._worker
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.exit_status == -signal.SIGKILL
    with pytest.raises(SlotLost):
        await asked.end()
