"""The promise of `outlooks.py`: true places and times, and a refusal only where there is no hope."""

import json

import pytest
from live_dispatcher import dispatching
from live_jobs import address, make_job, request
from live_slot import MODELS, in_loop

from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Rules
from rkllm_mqtt.core.trace import replay

FAULTY = MODELS / "faulty.sim"
INTERACTIVE, NORMAL, BACKGROUND = Priority


@pytest.fixture
def steady(tmp_path):
    """A model that takes about half a second for an answer of 20 tokens."""
    file = tmp_path / "steady.sim"
    file.write_text("rkllm-simulator 1\nprofile: instant\nfloor_ms: 20\ndecode_ms_per_token: 25\n")
    return file


ANSWER = "one two six ten sun sea sky oak elm fox " * 2


async def learned(kit):
    """Let the daemon see three answers."""
    for number in range(3):
        await kit.ask(f"learn-{number}", f"say: {ANSWER}")
    for number in range(3):
        await kit.final(f"learn-{number}")


def newcomer(kit, ttl_s, client="app", priority=NORMAL):
    asked = request(f"say: {ANSWER}", model=kit._model, max_tokens=100_000)
    return make_job(asked, address(client), priority=priority, deadline=kit.journal.now() + ttl_s, seq=0)


@in_loop
async def test_who_can_never_be_in_time_is_told_so_with_the_time(tmp_path, steady):
    async with dispatching(tmp_path, steady) as kit:
        await learned(kit)
        for number in range(8):
            await kit.ask(f"q{number}", f"say: {ANSWER}")
        await kit.running("q0")
        fault = kit.scheduler.outlooks.too_late(newcomer(kit, 0.5))
        assert fault.code is Code.EXPIRED
        assert 2 < fault.eta_s < 6
        assert f"{fault.eta_s:g} s" in fault.message
        assert fault.hint
        for hopeful in (
            newcomer(kit, 60),
            newcomer(kit, fault.eta_s),
            newcomer(kit, 2.0, "stranger"),  # whose turn comes sooner
            newcomer(kit, 0.5, priority=INTERACTIVE),  # which preempts
        ):
            assert kit.scheduler.outlooks.too_late(hopeful) is None


@in_loop
async def test_before_anything_is_learned_nobody_is_refused(tmp_path, steady):
    async with dispatching(tmp_path, steady) as kit:
        for number in range(8):
            await kit.ask(f"q{number}", f"say: {ANSWER}")
        await kit.running("q0")
        assert kit.scheduler.outlooks.too_late(newcomer(kit, 0.1)) is None


@in_loop
async def test_while_the_queue_is_paused_places_are_told_and_no_times(tmp_path, steady):
    async with dispatching(tmp_path, steady) as kit:
        await learned(kit)
        outlooks = kit.scheduler.outlooks
        kit.dispatcher.paused = outlooks.paused = True
        jobs = [await kit.ask(f"q{number}", f"say: {ANSWER}") for number in range(2)]
        assert [outlooks.outlook(job) for job in jobs] == [(1, None), (2, None)]
        assert outlooks.all_done_s() is None
        assert outlooks.frees_in_s("app") is None
        kit.dispatcher.paused = outlooks.paused = False
        assert outlooks.outlook(jobs[1])[1] is not None
        assert outlooks.all_done_s() is not None


@in_loop
async def test_the_times_that_were_told_come_true(tmp_path, steady):
    async with dispatching(tmp_path, steady) as kit:
        await learned(kit)
        jobs = [await kit.ask(f"q{number}", f"say: {ANSWER}") for number in range(6)]
        await kit.running("q0")
        now = kit.journal.now()
        told = {job.id: begins_s for job, _, begins_s in kit.scheduler.outlooks.first(20)}
        assert list(told) == [job.id for job in jobs[1:]]
        began = {}
        for job in jobs[1:]:
            await kit.until(lambda job=job: job.id in kit.started())
            began[job.id] = kit.journal.now() - now
        for name in list(told)[1:]:
            assert told[name] == pytest.approx(began[name], rel=0.35)
        assert kit.scheduler.outlooks.frees_in_s(None) is None


@in_loop
async def test_a_job_that_gives_way_comes_behind_the_voice(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await kit.ask("warm")
        await kit.final("warm")
        long = await kit.ask("long", "endless", priority=BACKGROUND)
        await kit.running("long")
        voice = newcomer(kit, 60, priority=INTERACTIVE)
        assert kit.scheduler.outlooks.outlook_of_new(voice).place == 1
        assert kit.scheduler.outlooks.outlook_of_new(voice).begins_in_s < 1
        await kit.dispatcher.cancel(long)
        await kit.final("long")


@in_loop
async def test_how_long_a_prompt_will_be_read_is_known_from_the_first_answer_on(tmp_path):
    slow = tmp_path / "slow.sim"
    # Its answers take long enough to be looked at.
    slow.write_text(
        "rkllm-simulator 1\nprofile: instant\n"
        "floor_ms: 5\nprefill_ms_per_token: 0.5\ndecode_ms_per_token: 100\n"
    )
    async with dispatching(tmp_path, slow) as kit:
        told = []
        for name, prompt in (("first", "short"), ("second", "short"), ("third", "long " * 400)):
            await kit.ask(name, prompt + " say: fine.")
            await kit.until(lambda name=name: any(turn.job.id == name for turn in kit.dispatcher.turns))
            turn = next(turn for turn in kit.dispatcher.turns if turn.job.id == name)
            told.append(kit.scheduler.outlooks.first_token_s(turn))
            assert turn.job.prompt_tokens == turn.tokens.tokens
            await kit.final(name)
    assert told[0] is None
    assert told[2] > 5 * told[1] > 0


@in_loop
async def test_the_voice_is_told_that_it_is_next_before_the_slot_was_looked_at(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await kit.ask("warm")
        await kit.final("warm")
        long = await kit.ask("long", "endless", priority=BACKGROUND)
        await kit.running("long")
        staged = await kit.ask("staged", priority=BACKGROUND)
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        voice = await kit.ask("voice", priority=INTERACTIVE)
        place, begins_s = kit.scheduler.outlooks.outlook(voice)
        assert (place, begins_s) == (1, pytest.approx(0, abs=1))
        told = [(job.id, place) for job, place, _ in kit.scheduler.outlooks.first(9)]
        assert told[0] == ("voice", 1)
        assert {name for name, _ in told} == {"voice", "staged", "long"}
        assert kit.scheduler.outlooks.outlook(staged)[0] in (2, 3)
        await kit.final("voice")
        await kit.dispatcher.cancel(long)
        await kit.final("staged")


@in_loop
async def test_a_days_trace_is_written_and_plays_again(tmp_path):
    trace = tmp_path / "trace.jsonl"
    async with dispatching(tmp_path, FAULTY, policy={"trace": str(trace)}) as kit:
        for number in range(5):
            await kit.ask(f"q{number}", "say: secret words", priority=list(Priority)[number % 3])
        for number in range(5):
            await kit.final(f"q{number}")
    lines = trace.read_text().splitlines()
    assert {json.loads(line)[0] for line in lines} >= {"add", "claim", "begin", "settle", "choose"}
    assert replay(lines, Rules()) == []
    assert "secret" not in trace.read_text()


@in_loop
async def test_a_trace_that_cannot_be_written_stops_nobody(tmp_path):
    async with dispatching(tmp_path, FAULTY, policy={"trace": str(tmp_path / "no" / "folder")}) as kit:
        await kit.ask("q1")
        assert (await kit.final("q1"))["status"] == "ok"
