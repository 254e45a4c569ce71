"""Old journals open, newer and foreign ones are refused with a sentence and left alone."""

import sqlite3
from pathlib import Path

import pytest

from rkllm_mqtt.core.job import Delivery, JobState, Priority
from rkllm_mqtt.store.errors import SchemaTooNew, StoreCorrupt, StoreError
from rkllm_mqtt.store.schema import MIGRATIONS, SCHEMA_VERSION, open_database

DATABASES = Path(__file__).parent / "databases"


def load(path, name):
    """Build the database file that an old daemon left, from its dump."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript((DATABASES / name).read_text(encoding="utf-8"))
    connection.close()


def schema_of(connection):
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return sorted(rows.fetchall())


def test_every_version_has_its_golden_database():
    assert sorted(file.name for file in DATABASES.iterdir()) == [
        f"v{version}.sql" for version in range(1, SCHEMA_VERSION + 1)
    ]
    assert len(MIGRATIONS) == SCHEMA_VERSION


def test_the_newest_golden_database_has_the_schema_of_a_new_journal(tmp_path, path):
    """Fails when a released schema file is edited instead of a step being added."""
    load(path, f"v{SCHEMA_VERSION}.sql")
    golden, fresh = open_database(path), open_database(tmp_path / "fresh.db")
    try:
        assert schema_of(golden) == schema_of(fresh)
    finally:
        golden.close()
        fresh.close()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
async def test_a_journal_of_each_version_opens_with_its_jobs(opened, path, version):
    load(path, f"v{version}.sql")
    async with opened() as journal:
        recovered = await journal.recover()
        done = await journal.find("rock", "kitchen", "done")
        counts = await journal.counts()
        assert journal.meta == {"uid": "5f0c", "session": "rkllm-mqtt-rock-1d2e"}
        assert journal.now() >= 4242.5
        assert [last.client for last in await journal.lasts()] == ["kitchen"]
    waiting, was_running = recovered.waiting
    assert (waiting.id, waiting.priority, waiting.deadline) == ("waiting", Priority.INTERACTIVE, 9000.25)
    assert (was_running.id, was_running.attempt, was_running.crashes) == ("running", 2, 1)
    assert (was_running.state, was_running.cancel_requested) == (JobState.WAITING, True)
    assert (done.state, done.outcome, done.delivery) == (JobState.SUCCEEDED, b'{"text":"hi"}', Delivery.DONE)
    assert len(recovered.undelivered) == 1
    assert counts["failed"] == counts["undelivered"] == 1


def test_the_connection_is_as_safe_as_promised(path):
    path.parent.mkdir()
    connection = open_database(path)
    try:
        pragmas = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "secure_delete")
        }
    finally:
        connection.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "auto_vacuum": 2,
        "secure_delete": 1,
    }


async def test_a_newer_journal_is_refused_and_left_alone(opened, path):
    async with opened():
        pass
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match=f"schema {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}") as refused:
        async with opened():
            pass
    assert "newer rkllm-mqtt" in refused.value.hint
    assert path.read_bytes() == before


def test_a_step_that_fails_leaves_the_version_before_it(path):
    path.parent.mkdir()
    first = "CREATE TABLE a (x);"
    open_database(path, steps=[first]).close()
    with pytest.raises(StoreError):
        open_database(path, steps=[first, "CREATE TABLE b (y); INSERT INTO nowhere VALUES (1);"])
    connection = open_database(path, steps=[first])
    assert [name for _, name, _ in schema_of(connection)] == ["a"]
    connection.close()
    connection = open_database(path, steps=[first, "CREATE TABLE b (y);", "ALTER TABLE b ADD COLUMN z;"])
    assert [name for _, name, _ in schema_of(connection)] == ["a", "b"]
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    connection.close()


@pytest.mark.parametrize("damage", ["text", "page", "truncated"])
async def test_a_damaged_journal_is_refused_and_kept(opened, new_job, path, damage):
    async with opened() as journal:
        for n in range(200):
            await journal.admit(new_job(f"{n}", request="x" * 300), may_insert=True, receipt=None)
    content = bytearray(path.read_bytes())
    if damage == "text":
        content[:] = b"not a database " * 5000
    elif damage == "page":
        for start in range(4096, len(content), 4096):
            content[start : start + 64] = b"\xa5" * 64
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=str(path)) as refused:
        async with opened():
            pass
    assert "nothing was removed" in refused.value.hint
    assert path.read_bytes() == content
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.db.lock"]


async def test_a_database_of_another_program_is_refused_and_left_alone(opened, path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE states (entity_id TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="not a journal"):
        async with opened():
            pass
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_made_is_told_as_such(opened, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"folder .* cannot be made"):
        async with opened(tmp_path / "file" / "journal.db"):
            pass


async def test_a_path_that_is_a_folder_is_told_as_such(opened, tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        async with opened(tmp_path):
            pass
