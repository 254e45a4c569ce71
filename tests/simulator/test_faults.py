"""Faults on demand: each kind, at its place, as often as asked."""

import signal

import pytest

from rkllmrt import simulator

FAULTS = simulator.MODELS / "faults.sim"


def tokens(played) -> int:
    return sum(1 for event in played.of("normal") if event["text"])


def test_abort_prints_the_assertion_and_dies_after_its_tokens(play) -> None:
    played = play("run", "please abort after a while", path=FAULTS)
    assert played.status == -signal.SIGABRT
    assert "GGML_ASSERT(backend_res != nullptr)" in played.errors
    assert tokens(played) == 3


@pytest.mark.parametrize(
    ("phrase", "status", "emitted"),
    [
        ("abort in prefill", -signal.SIGABRT, 0),
        ("segfault", -signal.SIGSEGV, 3),
        ("leave", 3, 3),
    ],
)
def test_the_process_ends_as_asked(play, phrase: str, status: int, emitted: int) -> None:
    played = play("run", phrase, path=FAULTS)
    assert (played.status, tokens(played)) == (status, emitted)


@pytest.mark.parametrize(("phrase", "emitted"), [("hang in prefill", 0), ("hang after", 3)])
def test_a_hang_ignores_abort(play, phrase: str, emitted: int) -> None:
    played = play("abort-in", 50, "run", phrase, path=FAULTS, SILENT_AFTER_S=1)
    assert played.status == -signal.SIGKILL
    assert tokens(played) == emitted
    assert played.of("aborting")[0]["status"] == 0
    assert not played.of("finish")


def test_a_stall_is_a_pause_that_ends(play) -> None:
    lines = 'when "slow": fault stall 200 ms after 2 tokens'
    played = play("run", "slow", lines=lines)
    assert played.perfs()[0]["generate_ms"] >= 199
    assert played.status == 0


@pytest.mark.parametrize(("phrase", "emitted"), [("error in prefill", 0), ("error after", 3)])
def test_the_error_state_comes_without_a_finish(play, phrase: str, emitted: int) -> None:
    played = play("run", phrase, "run", "2+2", path=FAULTS)
    run = played.runs()[0]
    assert [event["event"] for event in run[-2:]] == ["error", "run"]
    assert run[-1]["status"] == -1
    assert sum(1 for event in run if event["event"] == "normal") == emitted
    assert played.texts()[1] == "2 + 2 = 4."


def test_a_refusal_is_minus_one_without_a_callback(play) -> None:
    assert play("run", "refuse this", path=FAULTS).runs() == [[{"event": "run", "status": -1}]]


def test_an_endless_answer_is_ended_by_abort_or_by_the_limit(play) -> None:
    limited = play("max", 300, "run", "endless", path=FAULTS, RKLLM_SIM_SPEED=100)
    assert len(limited.of("normal")) == 300
    assert (
        len(play("abort-after", 200, "run", "endless", path=FAULTS, RKLLM_SIM_SPEED=100).of("normal")) == 200
    )


def test_an_endless_answer_shows_its_end_marks(play) -> None:
    lines = "eos_text: text\nalways: fault endless"
    text = play("special", 1, "max", 60, "run", "say: one two", lines=lines).texts()[0]
    assert text.startswith("one two<|im_end|>one two<|im_end|>")


def test_garbage_is_no_utf8(play) -> None:
    text = play("run", "garbage", path=FAULTS).texts()[0]
    with pytest.raises(UnicodeEncodeError):
        text.encode()


def test_a_leak_really_takes_memory(play) -> None:
    played = play("run", "leak", "run", "leak", path=FAULTS)
    first, second = (perf["mb"] for perf in played.perfs())
    assert second - first >= 19


def test_crash_while_aborting(play) -> None:
    played = play("abort-after", 2, "run", "crash while aborting", path=FAULTS)
    assert played.status == -signal.SIGSEGV
    assert tokens(played) == 2


def test_no_finish_returns_success_in_silence(play) -> None:
    run = play("run", "no finish", path=FAULTS).runs()[0]
    assert [event["event"] for event in run if event["event"] != "normal"] == ["run"]
    assert run[-1]["status"] == 0


def test_a_fault_of_the_first_runs_counts_over_processes_by_its_state_file(play, tmp_path) -> None:
    lines = 'fault_state: count\nwhen "crash": fault abort first 2 times'
    statuses = [play("run", "crash", lines=lines).status for _ in range(4)]
    assert statuses == [-signal.SIGABRT, -signal.SIGABRT, 0, 0]
    assert (tmp_path / "count").exists(), "a relative path begins at the model file"


def test_a_state_file_counts_for_any_number_of_rules(play) -> None:
    rules = "".join(f'\nwhen "crash {n}.": fault exit 3 first 1 times' for n in range(100))
    words = ("run", "crash 99.")
    assert [play(*words, lines=f"fault_state: count{rules}").status for _ in range(2)] == [3, 0]


def test_without_a_state_file_every_process_counts_anew(play) -> None:
    lines = "always: fault fail first 1"
    for _ in range(2):
        statuses = [event["status"] for event in play("run", "a", "run", "b", lines=lines).of("run")]
        assert statuses == [-1, 0]


def test_faults_by_run_number(play) -> None:
    lines = "on run 2: fault fail\nevery 3 runs: fault fail"
    words = ["run", "hello"] * 6
    assert [event["status"] for event in play(*words, lines=lines).of("run")] == [0, -1, -1, 0, 0, -1]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("fail", {"event": "init", "status": -1, "null": True}),
        ("null", {"event": "init", "status": 0, "null": True}),
    ],
)
def test_init_fails_as_asked(play, fault: str, expected: dict) -> None:
    played = play(lines=f"on init: fault {fault}")
    assert played.of("init") == [expected]
    if fault == "fail":
        assert "E RKNN: failed to malloc npu memory, size: " in played.log


def test_init_may_die_and_so_may_destroy(play) -> None:
    assert play(lines="on init: fault abort").status == -signal.SIGABRT
    played = play("run", "hello", lines="on destroy: fault segv")
    assert played.status == -signal.SIGSEGV
    assert played.of("run")[0]["status"] == 0


def test_a_fault_in_any_column_ends_the_batch(play) -> None:
    played = play("batch", 2, "run", "hello|segfault", path=FAULTS)
    assert played.status == -signal.SIGSEGV
