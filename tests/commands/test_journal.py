"""`rkllm-mqtt journal`, beside a daemon that runs, and without one."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_client import Client
from live_daemon import Daemon

from rkllm_mqtt.store.schema import SCHEMA_VERSION, open_database

Launch = Callable[..., tuple[Daemon, Client]]


@pytest.fixture
def journal(commands: Any, tmp_path: Path) -> Callable[..., Any]:
    """Run `rkllm-mqtt journal` with the configuration of a daemon, or on a file."""

    def run(*words: Any, of: Daemon | None = None) -> Any:
        options = () if of is None else ("--config", str(of.config_file))
        return commands.run("journal", *(str(word) for word in words), *options, broker=False)

    return run


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A journal without jobs, as a new daemon leaves it."""
    path = tmp_path / "journal.db"
    open_database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO clock VALUES (1, 1.0, 'boot', 1.0, 1.0)")
    connection.commit()
    connection.close()
    return path


def ask(client: Client, daemon: Daemon, number: int) -> None:
    box = daemon.client("kitchen")
    body = {"prompt": f"say: the secret word {number}"}
    client.publish(f"{box}/request/q{number}", json.dumps(body))
    assert client.reply(f"{box}/reply/q{number}").json["status"] == "ok"


def test_beside_a_running_daemon_it_checks_exports_and_backs_up_and_the_backup_restores(
    launch: Launch, journal: Callable[..., Any], tmp_path: Path
) -> None:
    daemon, client = launch()
    for number in range(3):
        ask(client, daemon, number)

    checked = journal("check", "--json", of=daemon)
    assert (checked.returncode, checked.stderr) == (0, b"")
    found = json.loads(checked.stdout)
    assert (found["ok"], found["problems"], found["jobs"]["succeeded"]) == (True, [], 3)
    assert found["schema"] == found["schema_known"] == SCHEMA_VERSION
    assert found["file_bytes"] + found["wal_bytes"] > 4096
    text = journal("check", of=daemon).stdout.decode()
    assert text.startswith(f"✓ {daemon.folder / 'journal.db'}: sound\n")
    assert "0 running, 0 waiting, 3 finished (3 succeeded)" in text

    lines = journal("export", of=daemon).stdout.decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["q0", "q1", "q2"]
    assert json.loads(lines[0])["usage"]["completion_tokens"] > 0
    assert "secret word" not in "".join(lines)
    full = journal("export", "--finished", "--contents", of=daemon).stdout.decode()
    assert full.count("say: the secret word") == 3
    assert json.loads(full.splitlines()[1])["outcome"]["text"]

    copy = tmp_path / "copy.db"
    saved = journal("backup", copy, "--json", of=daemon)
    assert json.loads(saved.stdout)["bytes"] == copy.stat().st_size
    assert copy.stat().st_mode & 0o777 == 0o600

    ask(client, daemon, 3)  # it went on, and this one is not in the copy
    uid = client.on(f"rkllm/{daemon.node}/info")[-1].json["uid"]
    daemon.stop()
    path = daemon.folder / "journal.db"
    assert not Path(f"{path}-wal").exists()
    copy.rename(path)
    daemon.start(client)
    assert client.on(f"rkllm/{daemon.node}/info")[-1].json["uid"] == uid
    lines = journal("export", of=daemon).stdout.decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["q0", "q1", "q2"]


def test_a_newer_journal_is_refused_by_the_daemon_and_by_each_command_and_left_alone(
    commands: Any, journal: Callable[..., Any], empty: Path, tmp_path: Path
) -> None:
    connection = sqlite3.connect(empty)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = empty.read_bytes()
    (tmp_path / "daemon.yaml").write_text(f"node: rock\njournal: {{path: {empty}}}\n")
    sentence = f"has journal schema {SCHEMA_VERSION + 1}, but this rkllm-mqtt knows only schemas up to"
    for words in (
        ("run", "--config", "daemon.yaml"),
        ("journal", "check", "--config", "daemon.yaml"),
        ("journal", "export", "--config", "daemon.yaml"),
        ("journal", "backup", str(tmp_path / "copy.db"), "--config", "daemon.yaml"),
    ):
        done = commands.run(*words, broker=False)
        assert done.returncode == 74, words
        assert sentence in done.stderr.decode(), words
        assert "install the newer rkllm-mqtt again" in done.stderr.decode(), words
        assert b"Traceback" not in done.stderr, words
    assert empty.read_bytes() == before
    assert not (tmp_path / "copy.db").exists()


def test_a_problem_is_exit_status_1_and_named(journal: Callable[..., Any], empty: Path) -> None:
    connection = sqlite3.connect(empty)
    connection.execute("DELETE FROM clock")
    connection.commit()
    connection.close()
    done = journal("check", "--journal", empty)
    assert done.returncode == 1
    text = done.stdout.decode()
    assert text.startswith(f"✗ {empty}: has problems\n")
    assert "the journal clock was never stored: clock" in text
    assert [
        p["code"] for p in json.loads(journal("check", "--json", "--journal", empty).stdout)["problems"]
    ] == ["no_clock"]


def test_what_is_no_journal_is_one_sentence_and_a_hint(journal: Callable[..., Any], tmp_path: Path) -> None:
    missing = journal("check", "--journal", tmp_path / "none.db")
    assert missing.returncode == 74
    said = missing.stderr.decode().splitlines()
    assert said[0] == f"rkllm-mqtt: there is no journal at {tmp_path / 'none.db'}"
    assert "--config" in said[1]
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at " * 20)
    damaged = journal("export", "--journal", tmp_path / "text.db")
    assert damaged.returncode == 74
    assert "is damaged" in damaged.stderr.decode()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("backup",), "`journal backup` needs the FILE to write."),
        (("check", "copy.db"), "`journal check` takes no FILE."),
        (("check", "--contents"), "--finished and --contents go with `journal export`."),
        (("repair",), "invalid choice: 'repair'"),
    ],
)
def test_words_that_make_no_sense_are_exit_status_2(
    journal: Callable[..., Any], words: tuple[str, ...], sentence: str
) -> None:
    done = journal(*words)
    assert done.returncode == 2
    assert sentence in done.stderr.decode()


def test_a_backup_over_a_file_is_refused(journal: Callable[..., Any], empty: Path) -> None:
    done = journal("backup", empty, "--journal", empty)
    assert done.returncode == 74
    assert "a backup replaces nothing" in done.stderr.decode()
