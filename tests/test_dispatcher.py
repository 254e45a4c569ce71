"""The promise of `dispatcher.py`: every job is taken to the slot, and back when it must, and ends once."""

import asyncio
import json

from live_dispatcher import dispatching
from live_slot import MODELS, in_loop

from rkllm_mqtt.core.job import JobState, Priority

PLAIN, FAULTY = MODELS / "plain.sim", MODELS / "faulty.sim"

_HANGS_ON_BAD = (
    "{% if messages[0].content == 'bad' %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}say: fine"
)


@in_loop
async def test_jobs_are_answered_in_their_order_with_figures_that_agree(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        for number in range(10):
            await kit.ask(f"q{number}", f"say: answer {number}")
        for number in range(10):
            final = await kit.final(f"q{number}")
            assert (final["text"], final["status"]) == (f"answer {number}", "ok")
            assert (final["attempt"], final["finish_reason"]) == (1, "stop")
            timing, usage = final["timing"], final["usage"]
            assert 0 <= timing["queue_ms"] <= timing["ttft_ms"] <= timing["total_ms"]
            assert usage["completion_tokens"] > 0
            assert 0 <= usage["cached_tokens"] <= usage["prompt_tokens"]
        assert kit.started() == [f"q{number}" for number in range(10)]
        assert kit.counters.succeeded == 10
        assert kit.counters.busy_s > 0
        assert kit.scheduler.paces["plain"].run_s is not None


@in_loop
async def test_deltas_join_to_the_text_and_come_after_started(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.ask("q1", "story 200 tokens")
        final = await kit.final("q1")
        kinds = [json.loads(message.payload).get("type", "delta") for message in kit.sent]
        assert kinds[0] == "started"
        assert "".join(delta["text"] for delta in kit.sent.of("delta")) == final["text"]
        assert final["deltas"] == len(kit.sent.of("delta"))


@in_loop
async def test_an_attempt_is_on_disk_before_its_first_token_is_published(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.until(lambda: kit.slot.loaded)
        job = await kit.ask("q1", "count to 20")
        go_on = kit.hold_journal()
        for _ in range(3):  # the dispatcher has heard of the job; it needs its turn in the loop
            await asyncio.sleep(0)
        (turn,) = kit.dispatcher.turns
        await turn.run.ended  # the library has answered already
        assert list(kit.sent) == []
        go_on.set()
        await kit.final("q1")
        assert kit.sent.of("delta")
        assert (await kit.journal.record(job.seq)).attempt == 1


@in_loop
async def test_a_second_question_counts_what_was_cached(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        long = "say: fine. " + "The window in the kitchen is open. " * 60
        await kit.ask("q1", long)
        first = (await kit.final("q1"))["usage"]
        await kit.ask("q2", long + "And now?")
        second = (await kit.final("q2"))["usage"]
        assert first["cached_tokens"] == 0
        assert second["cached_tokens"] > first["prompt_tokens"] * 0.8
        assert kit.sent.events("started")[1]["cached_tokens"] > 0
        assert kit.counters.tokens_cached == second["cached_tokens"]


@in_loop
async def test_what_the_library_has_cached_without_our_knowledge_is_no_shorter_prompt(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        usages = []
        for name in ("first", "second"):
            kit.scheduler.forget_cache()
            text = "say: fine. " + "The window in the kitchen is open. " * 60
            await kit.ask(name, text, priority=Priority.INTERACTIVE)
            usages.append((await kit.final(name))["usage"])
        first, second = usages
        assert first["cached_tokens"] == 0
        # By our estimate, which is half of what this tokenizer makes.
        assert second["prompt_tokens"] == second["cached_tokens"] > 0.4 * first["prompt_tokens"]
        assert second["cached_estimated"]


@in_loop
async def test_a_higher_class_takes_the_place_of_a_staged_job_but_not_of_an_interactive_one(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        running = await kit.ask("running", "endless", priority=Priority.INTERACTIVE)
        await kit.running("running")
        await kit.ask("staged", priority=Priority.BACKGROUND)
        await kit.ask("later", priority=Priority.BACKGROUND)
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        await kit.ask("urgent", priority=Priority.INTERACTIVE)
        await kit.until(lambda: [turn.job.id for turn in kit.dispatcher.turns] == ["running", "urgent"])
        assert [job.id for job in kit.live.waiting] == ["staged", "later"]
        assert kit.started() == ["running"]
        await kit.dispatcher.cancel(running)
        await kit.final("later")
        assert kit.started() == ["running", "urgent", "staged", "later"]
        assert (await kit.final("staged"))["attempt"] == 1


@in_loop
async def test_while_paused_nothing_begins_and_what_runs_goes_on(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.until(lambda: kit.slot.loaded)
        kit.dispatcher.paused = True
        job = await kit.ask("q1")
        await kit.ask("q2")
        for _ in range(20):
            await kit.journal.counts()
        assert kit.started() == []
        await kit.dispatcher.cancel(job)
        assert (await kit.final("q1"))["error"]["code"] == "cancelled"
        kit.dispatcher.paused = False
        kit.dispatcher.wake()
        assert (await kit.final("q2"))["text"] == "hello"


# ends that are asked for


@in_loop
async def test_a_cancel_ends_a_job_wherever_it_is(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        running = await kit.ask("running", "endless")
        await kit.running("running")
        staged, waiting = await kit.ask("staged"), await kit.ask("waiting")
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        for job in (waiting, staged, running, running):
            await kit.dispatcher.cancel(job)
            final = await kit.final(job.id)
            assert (final["error"]["code"], final["finish_reason"]) == ("cancelled", "cancelled")
        assert kit.started() == ["running"]
        assert (await kit.final("running"))["text"]
        assert kit.live.count == 0
        await kit.ask("next")
        assert (await kit.final("next"))["status"] == "ok"
        assert kit.slot.restarts == 0


@in_loop
async def test_a_deadline_ends_a_job_wherever_it_is(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        running = await kit.ask("running", "endless")
        await kit.running("running")
        staged, waiting = await kit.ask("staged"), await kit.ask("waiting")
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        for job in (waiting, staged, running):
            kit.dispatcher.expire(job)
            assert (await kit.final(job.id))["error"]["code"] == "expired"
        assert kit.started() == ["running"]


@in_loop
async def test_a_job_that_has_expired_is_never_begun(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.ask("late", deadline=kit.journal.now() - 1)
        await kit.ask("good", deadline=kit.journal.now() + 1000)
        assert (await kit.final("late"))["error"]["code"] == "expired"
        assert (await kit.final("good"))["status"] == "ok"
        assert kit.started() == ["good"]


@in_loop
async def test_a_prompt_that_does_not_fit_the_window_says_so(tmp_path):
    async with dispatching(tmp_path, PLAIN, context_tokens=64) as kit:
        await kit.ask("q1", "many words " * 100)
        error = (await kit.final("q1"))["error"]
        assert error["code"] == "context_overflow"
        assert "the window of the model 64" in error["message"]
        assert not error["retryable"]
        await kit.ask("q2", "hi")
        assert (await kit.final("q2"))["status"] == "ok"


@in_loop
async def test_a_conversation_that_the_template_refuses_fails_alone(tmp_path):
    template = tmp_path / "refuses.jinja"
    template.write_text(
        "{{ raise_exception('no such role') if messages[0].content == 'bad' else 'say: fine' }}"
    )
    async with dispatching(tmp_path, PLAIN, template=str(template)) as kit:
        await kit.ask("bad", "bad")
        await kit.ask("good", "good")
        error = (await kit.final("bad"))["error"]
        assert error["code"] == "invalid_request"
        assert "no such role" in error["message"]
        assert (await kit.final("good"))["status"] == "ok"


@in_loop
async def test_a_template_that_never_ends_costs_its_job_and_stops_nobody_else(tmp_path):
    template = tmp_path / "hangs.jinja"
    template.write_text(_HANGS_ON_BAD)
    async with dispatching(tmp_path, PLAIN, template=str(template)) as kit:
        await kit.ask("bad", "bad")
        await kit.ask("good", "good")
        failed, turns = asyncio.ensure_future(kit.final("bad")), 0
        while not failed.done():  # the event loop goes round all the while
            turns += 1
            await asyncio.wait({failed}, timeout=0.001)
        assert turns > 20
        error = failed.result()["error"]
        assert error["code"] == "model_error"
        assert "took more than" in error["message"]
        assert (await kit.final("good"))["text"] == "fine"


@in_loop
async def test_a_job_that_is_cancelled_while_its_prompt_is_made_ends_as_cancelled(tmp_path):
    template = tmp_path / "hangs.jinja"
    template.write_text(_HANGS_ON_BAD)
    async with dispatching(tmp_path, PLAIN, template=str(template)) as kit:
        job = await kit.ask("q1", "bad")
        await kit.ask("q2")
        await kit.dispatcher.cancel(job)
        assert (await kit.final("q1"))["finish_reason"] == "cancelled"
        assert (await kit.final("q2"))["text"] == "fine"
        assert kit.started() == ["q2"]


@in_loop
async def test_a_bug_of_ours_ends_its_job_and_not_the_daemon(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        kit.bad_event = b'"type":"started"'
        await kit.ask("q1", "endless")
        error = (await kit.final("q1"))["error"]
        assert error["code"] == "internal"
        kit.bad_event = None
        await kit.ask("q2")
        assert (await kit.final("q2"))["status"] == "ok"


# several models


@in_loop
async def test_each_job_runs_on_its_model_and_jobs_of_the_loaded_one_come_before_a_load(tmp_path):
    other = tmp_path / "other.sim"
    other.write_text('rkllm-simulator 1\nprofile: instant\nalways: reply "the other"\n')
    async with dispatching(tmp_path, PLAIN, other) as kit:
        for name, model in (("a", "plain"), ("b", "other"), ("c", "other"), ("d", "plain")):
            await kit.ask(name, model=model)
        texts = {name: (await kit.final(name))["text"] for name in "abcd"}
        assert texts == {"a": "hello", "b": "the other", "c": "the other", "d": "hello"}
        assert kit.started() == ["a", "d", "b", "c"]
        assert kit.slot.restarts == 0
        kit.dispatcher.load("other")
        await kit.until(lambda: kit.slot.loaded == "other")


@in_loop
async def test_jobs_of_a_model_that_cannot_be_loaded_are_told_and_others_are_answered(tmp_path):
    missing = tmp_path / "missing.sim"
    async with dispatching(tmp_path, missing, PLAIN, restart_max_s=0.05) as kit:
        await kit.ask("lost")
        await kit.ask("lost too")
        await kit.ask("served", model="plain")
        for name in ("lost", "lost too"):
            error = (await kit.final(name))["error"]
            assert error["code"] == "model_error"
            assert "missing.sim" in error["message"]
            assert error["retryable"]
            assert error["retry_after_s"] == 0.05
        assert (await kit.final("served"))["text"] == "hello"
        missing.write_bytes(PLAIN.read_bytes())
        await kit.ask("found")
        assert (await kit.final("found"))["text"] == "hello"


# the stop


@in_loop
async def test_a_stop_without_time_puts_everything_back(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        running = await kit.ask("running", "endless")
        await kit.running("running")
        staged = await kit.ask("staged")
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        await kit.dispatcher.stop(0)
        assert list(kit.dispatcher.turns) == []
        assert [job.id for job in kit.live.waiting] == ["running", "staged"]
        assert not any(final.done() for final in kit.finals.values())
        for job in (running, staged):
            record = await kit.journal.record(job.seq)
            assert (record.state, record.crashes) == (JobState.WAITING, 0)


@in_loop
async def test_a_stop_lets_the_running_job_end_in_its_time_and_begins_no_other(tmp_path):
    async with dispatching(tmp_path, FAULTY) as kit:
        await kit.ask("running", "count to 50")
        await kit.running("running")
        await kit.ask("staged")
        await kit.until(lambda: len(list(kit.dispatcher.turns)) == 2)
        await kit.dispatcher.stop(20)
        assert (await kit.final("running"))["status"] == "ok"
        assert kit.started() == ["running"]
        assert [job.id for job in kit.live.waiting] == ["staged"]
