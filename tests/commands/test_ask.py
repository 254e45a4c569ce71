"""`ask` as a person and as a script use it."""

import json
import re
import subprocess
import threading
from typing import Any

import pytest

from rkllm_mqtt.commands.main import main


def test_on_a_pipe_only_the_text_is_written(commands: Any, daemon: Any) -> None:
    done = commands.run("ask", "Hello", "there")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Hello from the board.\n", b"")
    request = daemon.requests[0]
    assert request.body == {"prompt": "Hello there", "stream": False, "priority": "interactive"}
    assert request.client == "cli-maker"


def test_options_become_members_of_the_request(commands: Any, daemon: Any) -> None:
    options = "--model m --preset precise --max-tokens 9 --temperature 0.5 --ttl 30"
    options += " --priority background --client me"
    done = commands.run("ask", "-", "--system", "Be brief.", "--thinking", *options.split(), given=b"Why?\n")
    assert done.returncode == 0
    assert daemon.requests[0].client == "me"
    assert daemon.requests[0].body == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?\n"}],
        "stream": False,
        "priority": "background",
        "model": "m",
        "preset": "precise",
        "max_tokens": 9,
        "temperature": 0.5,
        "thinking": True,
        "ttl_s": 30.0,
    }


def test_json_prints_the_final_and_nothing_else(commands: Any, daemon: Any) -> None:
    done = commands.run("ask", "hi", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["text"], answer["id"]) == (
        0,
        "Hello from the board.",
        daemon.requests[0].id,
    )


def test_an_error_goes_to_stderr_with_code_sentence_and_hint(commands: Any, daemon: Any) -> None:
    daemon.answer = lambda request: daemon.fail(
        request, "queue_full", "The queue is full.", "Try later.", "Half an"
    )
    done = commands.run("ask", "hi")
    assert (done.returncode, done.stdout) == (1, b"Half an\n")
    assert done.stderr == b"queue_full: The queue is full.\nTry later.\n"


def test_in_a_terminal_it_waits_in_one_line_streams_and_closes_with_numbers(
    commands: Any, daemon: Any
) -> None:
    steps: dict[str, threading.Event] = {name: threading.Event() for name in ("queued", "started", "loading")}

    def answer(request: Any) -> None:
        threading.Thread(target=tell, args=(request,), daemon=True).start()

    def tell(request: Any) -> None:
        daemon.accept(request, position=3, queue_length=7, eta_s=12)
        assert steps["queued"].wait(20)
        daemon.event(request, "started", attempt=1, model="tiny", cached_tokens=0)
        assert steps["started"].wait(20)
        daemon.event(request, "progress", phase="load", elapsed_s=2.0, eta_s=None)
        assert steps["loading"].wait(20)
        daemon.delta(request, 0, "Let me see.", kind="thinking")
        daemon.delta(request, 1, "Once ")
        daemon.delta(request, 2, "upon\x1b]0;evil\x07")
        daemon.final(request, "Once upon\x1b]0;evil\x07 a time.", thinking="Let me see.", deltas=3)

    daemon.answer = answer
    terminal = commands.in_terminal("ask", "a story")
    terminal.wait_for("waiting: place 3 of 7, about 12 s")
    steps["queued"].set()
    terminal.wait_for("reading the prompt")
    steps["started"].set()
    terminal.wait_for("loading the model 2")
    steps["loading"].set()
    assert terminal.wait() == 0
    assert b"\x1b]0;" not in terminal.output
    assert b"\x1b[2mLet me see.\x1b[0m" in terminal.output
    end = terminal.text[terminal.text.index("Let me see.") :]
    story, numbers = end.split("a time.\n")
    assert story == "Let me see.\n\nOnce upon]0;evil "
    assert numbers.strip() == (
        "5 tokens · 15.2 tokens/s · first token 0.31 s · prompt 12 tokens, 8 cached · tiny"
    )


def test_a_restart_says_so_and_prints_anew(commands: Any, daemon: Any) -> None:
    seen = threading.Event()

    def tell(request: Any) -> None:
        daemon.accept(request)
        daemon.delta(request, 0, "A wrong ")
        assert seen.wait(20)
        daemon.event(request, "restarted", attempt=2, from_seq=0)
        daemon.delta(request, 0, "A right ", attempt=2)
        daemon.final(request, "A right answer.", attempt=2)

    daemon.answer = lambda request: threading.Thread(target=tell, args=(request,), daemon=True).start()
    terminal = commands.in_terminal("ask", "hi")
    terminal.wait_for("A wrong ")
    seen.set()
    assert terminal.wait() == 0
    assert re.search(r"A wrong \n\(restarted\)\n.*A right answer\.\n", terminal.text, re.DOTALL)


def test_an_answer_that_gives_way_says_so_and_goes_on_in_a_line_of_its_own(
    commands: Any, daemon: Any
) -> None:
    steps: dict[str, threading.Event] = {name: threading.Event() for name in ("begun", "told")}

    def tell(request: Any) -> None:
        daemon.accept(request)
        daemon.event(request, "started", attempt=1, model="tiny", cached_tokens=0)
        daemon.delta(request, 0, "if so:\n")
        daemon.delta(request, 1, "    one day")
        assert steps["begun"].wait(20)
        daemon.event(request, "position", position=2, eta_s=4.6)
        assert steps["told"].wait(20)
        daemon.delta(request, 2, " it rained")
        daemon.final(request, "if so:\n    one day it rained", deltas=3)

    daemon.answer = lambda request: threading.Thread(target=tell, args=(request,), daemon=True).start()
    terminal = commands.in_terminal("ask", "hi")
    terminal.wait_for("    one day")
    steps["begun"].set()
    terminal.wait_for("another goes first; waiting: place 2, about 5 s")
    steps["told"].set()
    assert terminal.wait() == 0
    assert "if so:\n    one day\n" in terminal.text
    assert "about 5 s\rit rained\n" in terminal.text


def test_ctrl_c_cancels_and_waits_for_the_confirmation(commands: Any, daemon: Any) -> None:
    daemon.answer = lambda request: (daemon.accept(request), daemon.delta(request, 0, "Well, "))
    terminal = commands.in_terminal("ask", "hi")
    terminal.wait_for("Well, ")
    terminal.interrupt()
    assert terminal.wait() == 130
    assert [cancel[1] for cancel in daemon.cancels] == [daemon.requests[0].id]
    assert "cancelled" in terminal.text
    assert "Traceback" not in terminal.text


def test_who_waits_for_a_paused_queue_is_told_so(commands: Any, daemon: Any) -> None:
    daemon.answer = daemon.accept
    daemon.retain("queue", {"state": "paused", "length": 1})
    terminal = commands.in_terminal("ask", "hi")
    terminal.wait_for("waiting: place 1 of 1, the queue is paused")
    for odd in ("not JSON", {"state": 5}, "[1]"):
        daemon.retain("queue", odd)
    terminal.wait_for("paused\rwaiting: place 1 of 1")
    terminal.interrupt()
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.text


def test_ctrl_c_gives_up_when_no_confirmation_comes(commands: Any, daemon: Any) -> None:
    daemon.answer = daemon.accept
    daemon.on_cancel = lambda client, request_id: None
    terminal = commands.in_terminal("ask", "hi")
    terminal.wait_for("waiting: place 1")
    terminal.interrupt()
    terminal.wait_for("cancelling")
    terminal.interrupt()  # a second one does not wait
    assert terminal.wait() == 130


def test_it_asks_again_with_the_same_id_and_bytes_until_accepted(commands: Any, daemon: Any) -> None:
    def answer(request: Any) -> None:
        if len(daemon.requests) > 1:
            daemon.answer_ok(request)

    daemon.answer = answer
    done = commands.run("ask", "hi")
    first, second = daemon.requests
    assert done.stdout == b"Hello from the board.\n"
    assert (first.id, first.payload) == (second.id, second.payload)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ask", " "], "There is no question."),
        (["ask", "hi", "--max-tokens", "0"], "--max-tokens: '0' is no whole number from 1"),
        (["ask", "hi", "--temperature", "nan"], "--temperature: 'nan' is no number from 0"),
        (["ask", "hi", "--client", "a/b"], "'a/b' cannot be a client name."),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_broker_is_asked(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert sentence in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(commands: Any, daemon: Any) -> None:
    daemon.answer = lambda request: (daemon.accept(request), daemon.final(request, "long " * 100_000))
    line = commands.words(*commands.at_broker("ask", "hi"))
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=commands.environ)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141
