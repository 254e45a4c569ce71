"""Abort ends the step in progress and then the run, once; a pause keeps it."""

import time

SLOW = "decode_ms_per_token: 5"


def kinds(run) -> list[str]:
    return [event["event"] for event in run]


def test_abort_inside_the_callback_ends_with_one_finish_and_success(play) -> None:
    played = play("abort-after", 3, "run", "story 50 tokens", "run", "2+2")
    first, second = played.runs()
    assert kinds(first) == ["normal", "normal", "normal", "aborting", "finish", "run"]
    assert first[3]["status"] == 0
    assert first[-1]["status"] == 0
    assert first[-2]["generate_tokens"] == 2
    assert played.texts()[1] == "2 + 2 = 4."
    assert second[-1]["status"] == 0


def test_abort_from_another_thread_waits_for_the_step(play) -> None:
    played = play("abort-in", 60, "run", "story 5000 tokens", lines="decode_ms_per_token: 300")
    run = played.runs()[0]
    assert kinds(run).count("finish") == 1
    assert kinds(run)[-2:] == ["finish", "run"]
    assert run[-1]["status"] == 0
    # The step that was being computed is finished first: 300 ms, less what a busy machine took to begin it.
    assert run[-2]["generate_ms"] >= 200


def test_abort_in_prefill_waits_for_the_whole_prefill_and_gives_no_token(play) -> None:
    begin = time.monotonic()
    run = play("abort-in", 10, "run", "hello", lines="floor_ms: 300").runs()[0]
    assert time.monotonic() - begin >= 0.3
    assert kinds(run) == ["aborting", "finish", "run"]
    assert run[1]["prefill_tokens"] > 0
    assert run[1]["generate_tokens"] == 0


def test_abort_of_an_idle_handle_does_not_touch_the_next_run(play) -> None:
    played = play("abort", "run", "2+2", "abort", "run", "2+3")
    assert played.texts() == ["2 + 2 = 4.", "2 + 3 = 5."]
    assert [event["status"] for event in played.of("aborting")] == [0, 0]


def test_the_run_after_an_abort_may_be_refused_now_and_then(play) -> None:
    words = ["abort-after", 1, "run", "hello", "run", "hello"] * 2
    played = play(*words, lines="fail_after_abort: 2")
    assert [event["status"] for event in played.of("run")] == [0, 0, 0, -1]
    assert kinds(played.runs()[3]) == ["run"]


def test_a_late_event_of_the_aborted_run_carries_its_userdata(play) -> None:
    words = ["abort-after", 1, "run-as", 1, "hello", "run-as", 2, "2+2"]
    first, second = play(*words, lines="late_events: yes").runs()
    assert {event["user"] for event in first if "user" in event} == {1}
    assert second[0]["user"] == 1
    assert {event["user"] for event in second[1:] if "user" in event} == {2}


def test_pause_gives_no_finish_and_the_next_run_goes_on_with_the_old_answer(play) -> None:
    played = play("pause-after", 3, "run", "count to 5", "size", "run", "something else", "run", "2+2")
    first, second, _third = played.runs()
    assert kinds(first) == ["normal"] * 3 + ["run"]
    assert first[-1]["status"] == 0
    whole, _, last = played.texts()[0] + played.texts()[1], None, played.texts()[2]
    assert whole == "1, 2, 3, 4, 5."
    assert last == "2 + 2 = 4."
    assert second[-2]["prefill_tokens"] == 0


def test_a_paused_run_leaves_the_same_kv_as_one_that_was_not(play) -> None:
    words = ["run", "count to 5", "size"]
    whole = play(*words).of("size")[0]["n"]
    assert play("pause-after", 3, "run", "count to 5", *words).of("size")[0]["n"] == whole


def test_abort_forgets_a_pause(play) -> None:
    assert play("pause-after", 2, "run", "count to 5", "abort", "run", "2+2").texts()[1] == "2 + 2 = 4."


def test_releases_with_a_void_callback_do_not_pause(play) -> None:
    played = play("pause-after", 2, "run", "count to 3", version="1.2.0")
    assert played.texts() == ["1, 2, 3."]


def test_an_asynchronous_run_calls_back_and_reports_running(play) -> None:
    played = play("async", "say: one two three", lines=SLOW)
    assert played.of("started")[0]["status"] == 0
    assert played.of("running")[0]["status"] == 1
    assert kinds(played.events).count("finish") == 1
    assert played.status == 0
