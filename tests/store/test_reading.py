"""A reader sees the journal as it is, writes nothing, and refuses with a sentence what it cannot read."""

import asyncio
import os
import sqlite3
import subprocess
import sys

import pytest

from rkllm_mqtt.store.errors import SchemaTooNew, StoreCorrupt, StoreError
from rkllm_mqtt.store.reading import reader, schema_of
from rkllm_mqtt.store.schema import SCHEMA_VERSION


async def test_a_reader_sees_what_an_open_journal_has_committed(opened, path, new_job, admitted):
    async with opened() as journal:
        await admitted(journal, new_job("a"))
        with reader(path) as connection:
            assert connection.execute("SELECT id FROM jobs").fetchall() == [("a",)]
            assert schema_of(connection) == SCHEMA_VERSION
            await admitted(journal, new_job("b"))
            assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (2,)


async def test_a_reader_cannot_write(opened, path, new_job, admitted):
    async with opened() as journal:
        await admitted(journal, new_job("a"))
        with pytest.raises(StoreError, match="cannot be written"), reader(path) as connection:
            connection.execute("DELETE FROM jobs")
        assert (await journal.counts())["waiting"] == 1


async def test_a_journal_that_a_killed_daemon_left_is_read_with_its_log(
    opened, path, new_job, admitted, crash_copy
):
    async with opened() as journal:
        await admitted(journal, new_job("a"))
        left = crash_copy(path)
    before = left.read_bytes()
    with reader(left) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    assert left.read_bytes() == before
    async with opened(left) as journal:
        assert (await journal.counts())["waiting"] == 1


def test_a_journal_that_is_not_there_is_told_with_what_to_do(path):
    with pytest.raises(StoreError, match="there is no journal at") as refused, reader(path):
        pass
    assert "--config" in refused.value.hint
    assert not path.parent.exists()


def test_an_empty_file_and_another_programs_database_are_no_journals(tmp_path):
    empty, other = tmp_path / "empty.db", tmp_path / "other.db"
    empty.touch()
    with pytest.raises(StoreError, match="is empty"), reader(empty):
        pass
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE states (entity_id TEXT)")
    connection.close()
    with pytest.raises(StoreCorrupt, match="not a journal"), reader(other):
        pass


async def test_a_newer_journal_is_refused(opened, path):
    async with opened():
        pass
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(SchemaTooNew), reader(path):
        pass


NOBODY = """
import os, sys
from pathlib import Path
from rkllm_mqtt.store.reading import reader
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with reader(Path(sys.argv[1])):
        print("read")
except Exception as error:
    print(error, error.hint, sep="|")
"""


def as_nobody(path):
    command = [sys.executable, "-c", NOBODY, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if os.geteuid() == 0:  # root alone can become somebody who may not

    async def test_a_journal_of_another_user_is_told_as_such(opened, path):
        async with opened():
            pass
        said = await asyncio.to_thread(as_nobody, path)
        assert f"the journal {path} may not be read|run it as the user of the daemon" in said
