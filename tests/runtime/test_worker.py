"""The promise of `runtime/worker.py`: serves the daemon in order, and never outlives it."""

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from live_slot import MODELS

FAULTY = MODELS / "faulty.sim"


def begun(worker, prompt, **fields):
    """Start a run and wait for its first token; return its number."""
    order = worker.order(prompt, **fields)
    worker.send(order)
    worker.until("tokens", order["gen"])
    return order["gen"]


def test_it_says_what_it_is_before_it_loads(worker):
    one = worker(version="1.2.3")
    one.send(one.load)
    hello, ready = one.next(), one.next()
    assert (hello["t"], hello["version"], hello["abi"], hello["simulated"]) == ("hello", "1.2.3", "D", True)
    assert hello["capabilities"]["per_run_sampling"] is False
    assert hello["warnings"] == []
    assert (ready["t"], ready["file"]) == ("ready", str(MODELS / "plain.sim"))


def test_a_staged_run_begins_without_a_word_of_the_daemon(worker):
    one = worker().ready()
    first, second = one.order("say: one"), one.order("say: two")
    one.send(first, second)
    said = [(frame["t"], frame["gen"]) for frame in one.until("done", 2)]
    assert [kind for kind in said if kind[0] != "tokens"] == [
        ("started", 1),
        ("done", 1),
        ("started", 2),
        ("done", 2),
    ]


def test_orders_that_come_while_a_run_ends_are_run_once_and_one_after_the_other(worker):
    one = worker().ready()
    ended, inside, said = 0, None, []
    one.send(one.order("say: one"), one.order("say: two"))
    while ended < 200:
        frame = one.next()
        if frame["t"] == "started":
            assert inside is None
            inside = frame["gen"]
            said.append(inside)
            if len(said) % 3:  # a third of the orders comes when the library is still inside, or just out
                one.send(one.order("say: next"))
        elif frame["t"] == "done":
            assert inside == frame["gen"]
            inside, ended = None, ended + 1
            if ended % 3 == 0:
                one.send(one.order("say: next"))
    assert said[:200] == list(range(1, 201))


def test_a_staged_run_is_taken_back_and_the_running_one_goes_on(worker):
    one = worker(FAULTY).ready()
    running = begun(one, "endless")
    staged = one.order("say: never")
    one.send(staged, {"op": "revoke", "gen": staged["gen"]}, {"op": "revoke", "gen": running})
    *between, done = one.until("done")
    assert done == {"t": "done", "gen": staged["gen"], "reason": "revoked"}
    assert not [frame for frame in between if frame["gen"] == staged["gen"]]
    one.send({"op": "abort", "gen": running})
    assert one.until("done")[-1]["reason"] == "aborted"
    assert one.ask("say: next").text == "next"


def test_an_abort_takes_a_staged_run_back_too(worker):
    one = worker(FAULTY).ready()
    running = begun(one, "endless")
    staged = one.order("say: never")
    one.send(staged, {"op": "abort", "gen": staged["gen"]})
    assert one.until("done")[-1] == {"t": "done", "gen": staged["gen"], "reason": "revoked"}
    one.send({"op": "abort", "gen": running})
    assert one.until("done")[-1]["gen"] == running


def test_an_abort_of_a_run_that_has_ended_does_not_touch_the_next(worker):
    one = worker(FAULTY).ready()
    one.ask("say: first")
    second = begun(one, "count to 20")
    one.send({"op": "abort", "gen": 1})
    assert one.until("done", second)[-1]["reason"] == "stop"


def test_an_abort_in_prefill_ends_the_run_before_its_first_token(worker, model):
    one = worker(model("prefill_ms_per_token: 5")).ready()
    order = one.order("some words " * 20)
    one.send(order)
    one.until("started")
    one.send({"op": "abort", "gen": order["gen"]})
    *between, done = one.until("done")
    assert (done["reason"], done["tokens"], between) == ("aborted", 0, [])
    assert done["prefill_ms"] is None


@pytest.mark.parametrize(
    ("prompt", "status", "words"),
    [("segfault", -signal.SIGSEGV, ""), ("assert", -signal.SIGABRT, "GGML_ASSERT"), ("leave", 7, "")],
)
def test_a_crash_of_the_library_is_the_end_of_the_connection(worker, prompt, status, words):
    one = worker(FAULTY).ready()
    begun(one, prompt)
    while one.next() is not None:
        pass
    assert one.exit_status() == status
    assert words in one.output()


def test_a_model_that_cannot_be_loaded_is_told_with_what_the_library_said(worker, model):
    one = worker(model("max_context: 1024"))
    one.send(one.load)
    failed = one.until("failed")[-1]
    assert "rkllm_init" in failed["message"]
    assert failed["hint"]
    assert one.next() is None
    assert one.exit_status() == 3
    assert "must be less than the model's max_context_limit[1024]" in one.output()


def test_a_library_that_reports_success_without_a_handle_has_failed(worker, model):
    one = worker(model("on init: fault null"))
    one.send(one.load)
    failed = one.until("failed")[-1]
    assert "no handle" in failed["message"]
    assert "memory" in failed["hint"]


@pytest.mark.parametrize("library", ["/nowhere/librkllmrt.so", str(Path(__file__))])
def test_a_library_that_cannot_be_opened_is_told(worker, library):
    one = worker()
    one.send({**one.load, "library": library})
    failed = one.until("failed")[-1]
    assert library in failed["message"]
    assert one.exit_status() == 3


def test_the_output_of_the_library_is_written_when_it_has_loaded_and_after_each_run(worker, monkeypatch):
    monkeypatch.setenv("RKLLM_LOG_LEVEL", "1")
    one = worker().ready()
    one.ask("say: hello")
    os.kill(one.process.pid, signal.SIGKILL)
    one.exit_status()
    output = one.output()
    assert "rkllm-runtime version: 1.3.1" in output
    assert "Tokens per Second" in output


def test_open_files_are_allowed_as_many_as_the_runtime_asks_for(worker):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, soft), hard))
    try:
        one = worker().ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{one.process.pid}/limits").read_text()
    raised = re.search(r"Max open files\s+(\d+)", limits)[1]
    assert int(raised) == (102_400 if hard == resource.RLIM_INFINITY else min(102_400, hard))


# the end


def test_stop_destroys_the_model_and_leaves_with_success(worker, model):
    one = worker().ready()
    one.send({"op": "stop"})
    assert one.next() is None
    assert one.exit_status() == 0
    destroyed = worker(model("on destroy: fault exit 9")).ready()
    destroyed.send({"op": "stop"})
    assert destroyed.exit_status() == 9


def test_stop_ends_the_running_run_first(worker):
    one = worker(FAULTY).ready()
    begun(one, "endless")
    one.send({"op": "stop"})
    assert one.until("done")[-1]["reason"] == "aborted"
    assert one.exit_status() == 0


def test_stop_right_behind_the_load_is_not_taken_for_a_run(worker):
    one = worker()
    one.send(one.load, {"op": "stop"})
    while one.next() is not None:
        pass
    assert one.exit_status() == 0
    assert "Traceback" not in one.output()


def test_a_run_right_behind_the_load_is_run(worker):
    one = worker()
    order = one.order("say: early")
    one.send(one.load, order)
    assert one.until("done")[-1]["reason"] == "stop"


def test_it_leaves_when_the_daemon_is_gone_before_a_word(worker):
    one = worker()
    one.socket.close()
    assert one.exit_status() == 5


@pytest.mark.parametrize("runs", [0, 1])  # the next one would be the other thread's
@pytest.mark.parametrize("prompt", [None, "endless"])
def test_it_leaves_in_order_when_the_daemon_is_gone(worker, prompt, runs):
    one = worker(FAULTY).ready()
    for _ in range(runs):
        one.ask("say: first")
    if prompt:
        begun(one, prompt)
    one.socket.close()
    assert one.exit_status() == 0


@pytest.mark.parametrize("runs", [1, 2])
def test_an_abort_reaches_each_of_the_threads_that_take_turns(worker, runs):
    one = worker(FAULTY).ready()
    for _ in range(runs):
        number = begun(one, "endless")
        one.send({"op": "abort", "gen": number})
        assert one.until("done", number)[-1]["reason"] == "aborted"


def test_an_error_of_ours_ends_the_process_and_is_told(worker):
    one = worker().ready()
    for _ in range(10):  # the main thread, which may run what comes right behind the load, is out by then
        one.ask("say: first")
    one.send({"op": "run", "gen": 70})  # an order without a prompt comes from no daemon
    assert one.next() is None
    assert one.exit_status() == 1
    assert "KeyError" in one.output()


def test_it_leaves_when_the_daemon_is_gone_although_the_library_hangs(worker, model):
    one = worker(model('when "hang": fault hang after 3 tokens'), abort_grace_s=0.1).ready()
    begun(one, "hang")
    one.socket.close()
    assert one.exit_status() in (0, 5)  # 0: the abort came before the hang
    destroying = worker(model("on destroy: fault hang"), abort_grace_s=0.1).ready()
    destroying.socket.close()
    assert destroying.exit_status() == 5


def test_it_leaves_when_the_daemon_is_gone_behind_a_stop_that_hangs(worker, model):
    one = worker(model("on destroy: fault hang"), abort_grace_s=0.1).ready()
    one.send({"op": "stop"})
    one.socket.close()
    assert one.exit_status() == 5


def test_it_leaves_when_the_daemon_is_gone_although_the_load_hangs(worker, model):
    one = worker(model("on init: fault hang"), abort_grace_s=0.1)
    one.send(one.load)
    one.until("hello")
    one.socket.close()
    assert one.exit_status() == 5


@pytest.mark.parametrize(
    "garbage", [b"what is this\n", b'{"op": 5}\n', b'{"no": "op"}\n', b'{"op": "abort"}\n']
)
def test_a_daemon_that_speaks_garbage_is_as_good_as_gone(worker, garbage):
    one = worker(FAULTY, abort_grace_s=0.1).ready()
    begun(one, "endless")
    one.socket.sendall(garbage)
    assert one.until("done")[-1]["reason"] == "aborted"
    assert one.exit_status() == 0


def test_it_starts_without_what_only_the_daemon_needs():
    code = "import sys, rkllm_mqtt.runtime.worker; print(*sys.modules)"
    line = [sys.executable, "-P", "-c", code]
    modules = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "pydantic", "paho", "sqlite3", "jinja2", "typing_extensions"} & set(modules)
    # Only msgspec has to do without it.
    code = (
        "import rkllm_mqtt.runtime, pydantic, typing_extensions; print(typing_extensions.TypedDict.__name__)"
    )
    done = subprocess.run([*line[:-1], code], capture_output=True, text=True, check=True)
    assert done.stdout == "TypedDict\n"
