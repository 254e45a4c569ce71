"""`demo` with the real broker and the real daemon, as a person sees it."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rkllm_mqtt.commands.client_address import BrokerAddress
from rkllm_mqtt.commands.client_connection import Connection
from rkllm_mqtt.commands.demo_broker import FIRST_OTHER_PORT, choose_port, start_broker
from rkllm_mqtt.commands.demo_child import Child
from rkllm_mqtt.commands.demo_note import note_path
from rkllm_mqtt.commands.demo_screen import Running, command_word, commands_to_type, log_line
from rkllm_mqtt.commands.failure import BrokerUnreachable
from rkllm_mqtt.commands.terminal import Terminal

FOLDER = re.compile(r"files +(\S+) \(")


@pytest.fixture
def somewhere() -> int:
    """A free port, so that a demo in a test meets no other one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children_of(pid: int) -> dict[str, int]:
    """Return the child processes by the last word that names them."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            line = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            found["daemon" if "run" in line else "broker"] = int(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < end, f"{pid} is still there"
        select.select([], [], [], 0.02)


def started(commands: Any, port: int, *words: str) -> Any:
    terminal = commands.in_terminal("demo", "--port", str(port), *words, rows=40, broker=False)
    terminal.wait_for("as it happens")
    return terminal


def test_it_starts_everything_and_each_command_works_as_shown(commands: Any, somewhere: int) -> None:
    terminal = started(commands, somewhere)
    screen = terminal.text
    assert " SIMULATED " in screen
    assert f"mosquitto on 127.0.0.1:{somewhere}" in screen
    lines = (
        screen[screen.index("Type in another") : screen.index("Ctrl-C stops")]
        .replace("\\\n", "")
        .splitlines()
    )
    typed = [line for line in lines if line.startswith("  ")]
    assert [len(typed), typed[2].split()[0]] == [3, "mosquitto_rr"]
    shown = (typed[0], typed[1] + " --once", typed[2])
    others = [
        subprocess.Popen(
            line,
            shell=True,
            cwd=commands.folder,
            env=commands.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for line in shown
    ]
    for line, other in zip(shown, others, strict=True):
        answer, complaints = other.communicate(timeout=60)
        assert (other.returncode, complaints) == (0, b""), line
        assert answer.strip()
    terminal.wait_for("→ rkllm/demo/client/me/request")
    terminal.wait_for("← rkllm/demo/client/me/reply")
    note = json.loads(note_path(commands.environ).read_text())
    assert (note["port"], note["node"]) == (somewhere, "demo")
    folder = FOLDER.search(screen)
    assert folder is not None
    pids = children_of(terminal.process.pid)
    assert set(pids) == {"broker", "daemon"}
    terminal.interrupt()
    assert terminal.wait() == 0
    assert "stopped and removed" in terminal.text
    assert not any(is_alive(pid) for pid in pids.values())
    assert not Path(folder.group(1)).exists()
    assert not note_path(commands.environ).exists()


def test_the_embedded_broker_serves_and_a_daemon_that_dies_is_said(commands: Any, somewhere: int) -> None:
    kept = commands.folder / "kept"
    terminal = started(commands, somewhere, "--broker", "embedded", "--keep", str(kept))
    assert "embedded broker on" in terminal.text
    assert "queue list" in terminal.text
    answer = commands.run("ask", "hello", broker=False)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert answer.stdout.strip()
    pids = children_of(terminal.process.pid)
    os.kill(pids["daemon"], signal.SIGKILL)
    assert terminal.wait() == 1
    assert "The daemon ended by itself, exit status -9." in terminal.text
    assert not any(is_alive(pid) for pid in pids.values())
    assert (kept / "journal.db").exists()


def test_a_broker_that_dies_is_said_and_the_daemon_stopped(commands: Any, somewhere: int) -> None:
    terminal = started(commands, somewhere)
    pids = children_of(terminal.process.pid)
    os.kill(pids["broker"], signal.SIGKILL)
    assert terminal.wait() == 1
    assert "The mosquitto ended by itself, exit status -9." in terminal.text
    assert not any(is_alive(pid) for pid in pids.values())
    assert not note_path(commands.environ).exists()


def test_children_do_not_outlive_a_demo_that_is_killed() -> None:
    script = (
        "import signal; from rkllm_mqtt.commands.demo_child import Child;"
        "child = Child('sleeper', ['sleep', '1000']); print(child._process.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until_gone(pid)


def test_a_wanted_port_that_is_taken_is_said(commands: Any, broker: int) -> None:
    done = commands.run("demo", "--port", str(broker), broker=False)
    assert done.returncode == 1
    assert f"Port {broker} is taken." in done.stderr.decode()


def test_a_taken_usual_port_leads_to_the_next_free_one() -> None:
    holders = []
    try:
        for port in (1883, FIRST_OTHER_PORT):
            holder = socket.socket()
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holders.append(holder)
            try:
                holder.bind(("127.0.0.1", port))
                holder.listen(1)
            except OSError:
                continue  # somebody else's: taken all the same
        assert choose_port(None) > FIRST_OTHER_PORT
    finally:
        for holder in holders:
            holder.close()


def test_the_embedded_broker_takes_3_1_1_after_refusing_5(tmp_path: Path, somewhere: int) -> None:
    child = start_broker("embedded", somewhere, tmp_path)
    connection = Connection(BrokerAddress(port=somewhere))
    try:
        end = time.monotonic() + 20
        while not connection.is_open:
            try:
                connection.open()
            except BrokerUnreachable:
                assert time.monotonic() < end
                select.select([child], [], [], 0.05)
        assert connection.protocol == "3.1.1"
        connection.subscribe(["a/b"])
        connection.publish("a/b", b"1")
        assert [message.payload for message in connection.pump(20)] == [b"1"]
    finally:
        connection.close()
        child.stop(10)
    assert child.exit_status == 0


def test_a_childs_lines_come_whole_and_its_last_ones_are_kept() -> None:
    script = (
        "import sys; sys.stdout.write('one\\ntw'); sys.stdout.flush();"
        " print('o', flush=True); sys.exit('three')"
    )
    child = Child("script", [sys.executable, "-c", script])
    lines: list[str] = []
    while not child.is_silent:
        assert select.select([child], [], [], 20)[0]
        lines += child.lines()
    child.stop(10)
    assert lines == ["one", "two", "three"]
    assert list(child.last) == lines
    assert child.exit_status == 1


def test_a_child_that_does_not_listen_is_killed() -> None:
    script = (
        "import signal, sys; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    )
    child = Child("script", [sys.executable, "-c", script])
    assert select.select([child], [], [], 20)[0]
    child.stop(0.05)
    assert child.exit_status == -9


def running(**changes: Any) -> Running:
    facts: dict[str, Any] = {
        "broker": "mosquitto",
        "host": "127.0.0.1",
        "port": 18830,
        "base": "rkllm",
        "node": "demo",
        "folder": Path("/tmp/x"),
        "kept": False,
        "noted": True,
        "info": {},
        "loaded": True,
    }
    return Running(**facts | changes)


def test_commands_name_the_broker_where_they_cannot_find_it() -> None:
    assert "--port" not in commands_to_type(running(), 80)[1]
    assert commands_to_type(running(noted=False), 80)[1].endswith("top --host 127.0.0.1 --port 18830")


def test_a_long_command_is_broken_so_that_it_can_still_be_copied() -> None:
    narrow, wide = commands_to_type(running(), 80)[2], commands_to_type(running(), 200)[2]
    assert narrow.replace("\\\n    ", "") == wide
    assert max(len(line) for line in narrow.splitlines()) <= 78


def test_the_command_is_shown_as_it_works_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "rkllm-mqtt"
    monkeypatch.chdir(tmp_path)
    assert command_word({"PATH": "/nowhere"}) == str(script)
    assert command_word({"PATH": str(script.parent)}) == "rkllm-mqtt"
    # Another terminal has not activated the environment that this one has.
    assert command_word({"PATH": str(script.parent), "VIRTUAL_ENV": "x"}) == str(script)
    monkeypatch.chdir(script.parent.parent)
    assert command_word({"PATH": "/nowhere"}) == "bin/rkllm-mqtt"


def test_log_lines_are_compact_and_debug_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(sys.stdout)
    for line in (
        "12:00:00 info    model_loaded model=demo",
        "12:00:01 debug   x y=1",
        "",
        "Segmentation fault",
    ):
        log_line(terminal, line)
    assert capsys.readouterr().out == "12:00:00  model loaded         model=demo\n  Segmentation fault\n"
