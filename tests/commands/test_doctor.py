"""`rkllm-mqtt doctor`, as a person and as a script use it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

TREES = Path(__file__).parents[1] / "host" / "trees"


@pytest.fixture
def config_file(commands: Any) -> Path:
    """A configuration for the shared broker, with the test's own base."""
    share_builds(commands)
    path = Path(commands.folder / "rkllm.yaml")
    path.write_text(
        f"node: kitchen\nbase: {commands.base}\nmqtt: {{port: {commands.port}}}\n"
        f"journal: {{path: {commands.folder}/state/journal.db}}\n"
    )
    return path


def share_builds(commands: Any) -> None:
    """Let the commands use the simulator that other tests have built."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    commands.environ["XDG_CACHE_HOME"] = str(cache)


def doctor(commands: Any, *words: str) -> tuple[int, list[dict[str, str]]]:
    share_builds(commands)
    done = commands.run("doctor", "--json", "--root", str(TREES / "x86"), *words, broker=False)
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout)


def test_everything_in_order_is_exit_status_0_also_with_warnings(commands: Any, config_file: Path) -> None:
    status, findings = doctor(commands, "--config", str(config_file))
    assert status == 0, findings
    assert {"ok", "warn"} <= {finding["level"] for finding in findings} <= {"ok", "warn", "skipped"}
    assert all(list(f) == ["group", "check", "level", "sentence", "advice"] for f in findings)
    groups = list(dict.fromkeys(finding["group"] for finding in findings))
    assert groups == ["Configuration", "Software", "Board", "Models", "Journal", "Broker"]
    assert not (commands.folder / "state").exists(), "the doctor leaves nothing behind"


def test_a_failed_check_is_exit_status_1(commands: Any, config_file: Path) -> None:
    with config_file.open("a") as file:
        file.write("models: [{id: qwen, file: /none/qwen.rkllm}]\n")
    status, findings = doctor(commands, "--config", str(config_file))
    assert status == 1
    failed = [(finding["group"], finding["check"]) for finding in findings if finding["level"] == "fail"]
    assert failed == [("Models", "qwen")]


def test_a_mistake_in_the_configuration_is_exit_status_78_and_the_board_is_still_examined(
    commands: Any, config_file: Path
) -> None:
    config_file.write_text("node: kitchen\nmqtt:\n  prot: 1883\n")
    status, findings = doctor(commands, "--config", str(config_file))
    assert status == 78
    assert findings[0]["level"] == "fail"
    assert f"{config_file}:3: mqtt.prot" in findings[0]["sentence"]
    groups = {finding["group"] for finding in findings}
    assert groups == {"Configuration", "Software", "Board"}


def test_a_configuration_file_that_is_not_there_is_exit_status_78(commands: Any) -> None:
    status, findings = doctor(commands, "--config", "/none/rkllm.yaml")
    assert status == 78
    assert "/none/rkllm.yaml" in findings[0]["sentence"]


def test_the_demo_that_runs_is_examined_when_nothing_is_named(commands: Any) -> None:
    from rkllm_mqtt.commands.demo_note import DemoNote, note_path, started_of, write_note

    pid = os.getpid()
    note = DemoNote("127.0.0.1", commands.port, commands.base, "demo", pid, started_of(pid))
    write_note(note, note_path(commands.environ))
    status, findings = doctor(commands)
    assert status == 0, findings
    assert "demo" in findings[0]["sentence"]
    assert "Journal" not in {finding["group"] for finding in findings}
    assert "Broker" in {finding["group"] for finding in findings}


def test_a_pipe_gets_plain_lines(commands: Any, config_file: Path) -> None:
    root = str(TREES / "rk3576")
    done = commands.run("doctor", "--config", str(config_file), "--root", root, broker=False)
    text = done.stdout.decode()
    assert done.returncode == 1
    assert "\x1b" not in text
    assert "  fail    NPU driver     rknpu 0.9.2 is too old" in text
    assert "→ Boot the vendor's kernel" in text
    assert text.rstrip().splitlines()[-1].startswith("1 failure, ")


def test_a_terminal_gets_symbols_colours_and_wrapped_lines(commands: Any, config_file: Path) -> None:
    root = str(TREES / "rk3576")
    line = ("doctor", "--config", str(config_file), "--root", root)
    terminal = commands.in_terminal(*line, columns=80, rows=24, broker=False)
    assert terminal.wait() == 1
    assert "✓ Python" in terminal.text
    assert "✗ NPU driver" in terminal.text
    assert b"\x1b[1;31m" in terminal.output
    assert max(len(text) for text in terminal.text.splitlines() if "asking" not in text) <= 80
