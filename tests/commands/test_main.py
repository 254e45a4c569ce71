"""The command line itself: help, mistakes and exit statuses."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from rkllm_mqtt.commands.main import COMMANDS, main


def test_help_names_every_command_and_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command.name} " in text
    assert "rkllm-mqtt demo" in text


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_each_commands_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"example:\n  rkllm-mqtt {name}" in capsys.readouterr().out


def test_version_is_printed(commands: Any) -> None:
    assert commands.run("--version", broker=False).stdout.startswith(b"rkllm-mqtt 0.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["asc", "hi"], "there is no command 'asc'; did you mean 'ask'?"),
        (["top", "--onec"], "there is no option '--onec'; did you mean '--once'?"),
        (["top", "now"], "there is no word 'now'"),
        (["ask", "hi", "--port", "70000"], "'70000' is no port"),
    ],
)
def test_a_mistyped_word_is_named(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""


def test_a_configuration_error_names_file_line_and_key_and_exits_78(commands: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("node: board\nmqtt:\n  hostt: broker\n")
    done = commands.run("top", "--config", "bad.yaml", broker=False)
    assert done.returncode == 78
    assert "bad.yaml:3: mqtt.hostt" in done.stderr.decode()


def test_config_check_takes_the_file_with_or_without_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "good.yaml"
    file.write_text("node: kitchen\n")
    for words in ([str(file)], ["--config", str(file)]):
        assert main(["config", "check", *words]) == 0
        assert capsys.readouterr().out.startswith(f"{file}: fine\n  node kitchen")
    assert main(["config", "example", str(file)]) == 2
    assert "reads no file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["top", "doctor"])
def test_a_terminal_that_is_not_utf_8_is_no_reason_to_fail(commands: Any, daemon: Any, command: str) -> None:
    daemon.retain("info", {"node": "board"})
    words = commands.words(*(["doctor"] if command == "doctor" else commands.at_broker("top", "--once")))
    environ = commands.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        words, env=environ, cwd=commands.folder, capture_output=True, check=False, timeout=60
    )
    assert b"Traceback" not in done.stderr
    assert done.stdout


def test_an_output_that_is_full_or_closed_is_no_traceback(commands: Any, daemon: Any) -> None:
    daemon.answer = daemon.answer_ok
    words = commands.words(*commands.at_broker("ask", "hi"))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(words, env=commands.environ, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"rkllm-mqtt: The output cannot be written: No space left on device.\n"
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *words]
    done = subprocess.run(shell, env=commands.environ, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_broker_that_is_not_there_is_one_sentence_and_a_hint(commands: Any) -> None:
    done = commands.run("ask", "hi", "--host", "127.0.0.1", "--port", "1", broker=False)
    assert done.returncode == 69
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "rkllm-mqtt: No broker answers at 127.0.0.1:1: Connection refused."
    assert "rkllm-mqtt demo" in lines[1]
    assert len(lines) == 2
