"""The promise of `scheduler.py`: what runs is charged and learned from, and places are told truly."""

import asyncio
import json

from live_dispatcher import dispatching
from live_jobs import make_job
from live_slot import MODELS, in_loop

from rkllm_mqtt.core.job import Priority

PLAIN, FAULTY = MODELS / "plain.sim", MODELS / "faulty.sim"


@in_loop
async def test_what_was_learned_is_there_after_a_restart(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        for number in range(3):
            await kit.ask(f"q{number}", f"say: answer {number}")
            await kit.final(f"q{number}")
        learned = kit.scheduler.paces["plain"].rates
        assert learned.runs == 3
        key = f"rates:plain:{kit.slot.facts.version}"
        await kit.dispatcher.stop(0)
        assert json.loads(kit.journal.meta[key])["runs"] == 3
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.ask("again")
        await kit.final("again")
        assert kit.scheduler.paces["plain"].rates.runs == 4


@in_loop
async def test_each_waiting_job_has_a_place_and_the_running_one_has_none(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await kit.ask("warm")
        await kit.final("warm")
        running = await kit.ask("running", "endless")
        await kit.running("running")
        names = ["staged", "second", "voice"]
        jobs = [await kit.ask(name) for name in names[:2]]
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        assert kit.scheduler.outlooks.outlook(running) == (0, None)
        assert [kit.scheduler.outlooks.outlook(job)[0] for job in jobs] == [1, 2]
        assert [place for _, place, _ in kit.scheduler.outlooks.first(20)] == [1, 2]
        voice = await kit.ask("voice", priority=Priority.BACKGROUND)
        place, eta_s = kit.scheduler.outlooks.outlook(voice)
        assert place == 3
        assert eta_s is not None
        new = make_job(asked=jobs[0].request, priority=Priority.INTERACTIVE)
        assert kit.scheduler.outlooks.outlook_of_new(new).place <= 2
        assert kit.scheduler.outlooks.all_done_s() >= 0


@in_loop
async def test_a_client_is_charged_what_its_runs_took_and_nothing_for_one_that_never_began(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        running = await kit.ask("running", "endless", priority=Priority.INTERACTIVE)
        await kit.running("running")
        await kit.ask("staged")
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        line = kit.live.policy.waiting.lines[Priority.NORMAL]
        charged = line.used_s("app")
        await kit.ask("urgent", priority=Priority.INTERACTIVE)
        await kit.until(lambda: [turn.job.id for turn in kit.dispatcher.turns] == ["running", "urgent"])
        assert line.used_s("app") < charged
        before = asyncio.get_running_loop().time()
        await kit.dispatcher.cancel(running)
        await kit.final("running")
        await kit.final("staged")
        assert 0 < line.used_s("app") < before + 100
