"""A backup is one moment of the journal, private, whole or absent, and opens like the journal itself."""

import asyncio
import sqlite3
import subprocess
import sys

import pytest

from rkllm_mqtt.core.job import Delivery
from rkllm_mqtt.store.backup import back_up
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.inspection import inspect
from rkllm_mqtt.store.reading import reader

SAVE = """
import resource, sys
from pathlib import Path
from rkllm_mqtt.store.backup import back_up
from rkllm_mqtt.store.reading import reader
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # a write beyond it fails, as on a full disk
with reader(Path(sys.argv[1])) as connection:
    back_up(connection, Path(sys.argv[2]))
"""


def limited(path, target):
    command = [sys.executable, "-c", SAVE, path, target]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def save(path, target):
    with reader(path) as connection:
        return back_up(connection, target)


async def test_a_backup_of_an_open_journal_opens_with_its_jobs_and_facts(
    opened, path, tmp_path, new_job, finished
):
    target = tmp_path / "copy.db"
    async with opened() as journal:
        seq = await finished(journal, new_job("a"), Delivery.PENDING)
        await journal.set_meta("uid", "5f0c")
        assert await asyncio.to_thread(save, path, target) == target.stat().st_size
        await finished(journal, new_job("later"))
        clock = journal.now()
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", "state"]
    with reader(target) as connection:
        assert inspect(connection, target).problems == ()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", "state"]
    async with opened(target) as restored:
        assert restored.meta == {"uid": "5f0c"}
        assert (await restored.recover()).undelivered == [seq]
        assert (await restored.record(seq)).outcome == b"done"
        assert await restored.find("rock", "kitchen", "later") is None
        assert restored.now() >= clock - 60.0


async def test_a_backup_while_jobs_are_written_is_one_moment(opened, path, tmp_path, new_job):
    """What was acknowledged before it began is in it, and jobs without a gap up to some moment after that."""
    async with opened() as journal:
        written = 0

        async def write():
            nonlocal written
            while True:
                news = (new_job(f"{written}-{n}", request="x" * 9000) for n in range(5))
                await asyncio.gather(*(journal.admit(new, may_insert=True, receipt=None) for new in news))
                written += 5

        writing = asyncio.create_task(write())
        for number in range(5):
            target, before = tmp_path / f"{number}.db", written
            await asyncio.to_thread(save, path, target)
            with reader(target) as connection:
                # The requests of this test are none that a daemon could take up.
                assert {problem.code for problem in inspect(connection, target).problems} <= {"unreadable"}
                numbers = [seq for (seq,) in connection.execute("SELECT seq FROM jobs ORDER BY seq")]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) >= before
        assert written > 5
        writing.cancel()


async def test_a_backup_replaces_nothing(opened, path, tmp_path):
    target = tmp_path / "copy.db"
    target.write_text("mine")
    async with opened():
        with pytest.raises(StoreError, match="exists already"):
            save(path, target)
        with pytest.raises(StoreError, match="exists already"):
            save(path, path)
    assert target.read_text() == "mine"


async def test_a_backup_that_fails_leaves_nothing(opened, path, tmp_path, new_job):
    async with opened() as journal:
        await journal.admit(new_job("a"), may_insert=True, receipt=None)
        with pytest.raises(StoreError, match="cannot be written"):
            save(path, tmp_path / "nowhere" / "copy.db")
        said = await asyncio.to_thread(limited, path, tmp_path / "copy.db")
        assert "cannot be written" in said
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


async def test_what_a_killed_backup_left_is_replaced(opened, path, tmp_path):
    (tmp_path / "copy.db.part").write_bytes(b"half")
    async with opened():
        save(path, tmp_path / "copy.db")
    connection = sqlite3.connect(tmp_path / "copy.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert not (tmp_path / "copy.db.part").exists()
