"""The library hangs: its silence is noticed, the worker is killed, and the job runs again."""

import json
import signal
import time

from live_daemon import check_answer

MODEL = """rkllm-simulator 1
fault_state: struck
decode_ms_per_token: 2
when "stuck early": fault hang in prefill first 1 times
when "stuck late": fault hang after 3 tokens first 1 times
when "always stuck": fault hang in prefill
"""


def test_a_hang_is_ended_by_the_silence_clock_and_the_job_runs_again_until_it_is_given_up(launch, tmp_path):
    model = tmp_path / "hangs.sim"
    model.write_text(MODEL)
    daemon, watcher = launch(
        models=[{"id": "hangs", "file": str(model)}],
        runtime={"stall_timeout_s": 0.4, "abort_grace_s": 0.2, "max_attempts": 2},
    )
    box = daemon.client("app")
    for name in ("early", "late"):
        watcher.publish(f"{box}/request/{name}", {"prompt": f"story 20 tokens, stuck {name}", "stream": True})
    watcher.publish(f"{box}/request/always", {"prompt": "always stuck"})
    watcher.publish(f"{box}/request/after", {"prompt": "say: hello"})
    for name in ("early", "late"):
        final = check_answer(watcher, box, name)
        assert (final["status"], final["attempt"]) == ("ok", 2)
        assert "restarted" in [m.json["type"] for m in watcher.on(f"{box}/event/{name}")]
    error = watcher.reply(f"{box}/reply/always").json["error"]
    assert error["code"] == "slot_failed"
    assert "silent" in error["message"]
    assert watcher.reply(f"{box}/reply/after").json["text"] == "hello"


def test_a_daemon_that_was_stopped_does_not_take_its_own_silence_for_the_librarys(launch, tmp_path):
    runs = tmp_path / "runs.jsonl"
    daemon, watcher = launch(
        environment={"RKLLM_SIM_PROFILE": "origin", "RKLLM_SIM_SPEED": "4", "RKLLM_SIM_PROMPTS": str(runs)},
        runtime={"stall_timeout_s": 1.0, "abort_grace_s": 0.2},
    )
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "story 40 tokens", "stream": True})
    watcher.wait(lambda m: m.topic == f"{box}/delta/q1")
    daemon.process.send_signal(signal.SIGSTOP)
    with runs.open() as lines:
        while "end_ns" not in (line := lines.readline()):
            watcher.wait_next(0.02)  # nothing comes: this is a pause
    ended = json.loads(line)["end_ns"] / 1e9
    time.sleep(max(0.0, ended + 1.5 - time.monotonic()))  # longer than the library may be silent
    daemon.process.send_signal(signal.SIGCONT)
    final = check_answer(watcher, box, "q1")
    assert (final["usage"]["completion_tokens"], final["attempt"]) == (40, 1)
    watcher.publish(f"{box}/request/q2", {"prompt": "story 40 tokens"})
    assert final["text"] == watcher.reply(f"{box}/reply/q2").json["text"]
