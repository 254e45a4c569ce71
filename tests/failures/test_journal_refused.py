"""The journal is newer, damaged or in use: the start is refused with a sentence, and the file left alone."""

import re
import sqlite3

EXIT_JOURNAL = 74


def refused(daemon):
    """Start the daemon once more and return what it says when it has ended."""
    before = len(daemon.log)
    daemon.afresh = True
    daemon.spawn()
    assert daemon.process.wait(40) == EXIT_JOURNAL
    daemon.process = None
    return daemon.log[before:]


def test_a_newer_or_damaged_journal(launch):
    daemon, _ = launch()
    daemon.stop()
    path = daemon.folder / "journal.db"
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()
    newer = path.read_bytes()
    said = refused(daemon)
    assert re.search(rf"schema {version + 1}.*up to {version}", said)
    assert "install the newer rkllm-mqtt again" in said
    assert path.read_bytes() == newer
    damaged = b"not a database " * 1000
    path.write_bytes(damaged)
    said = refused(daemon)
    assert str(path) in said
    assert "nothing was removed" in said
    assert path.read_bytes() == damaged


def test_a_journal_in_use(launch):
    daemon, watcher = launch()
    first, daemon.process = daemon.process, None
    said = refused(daemon)
    daemon.process = first
    assert f"is in use by process {first.pid}" in said
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "say: hello"})
    assert watcher.reply(f"{box}/reply/q1").json["text"] == "hello"
