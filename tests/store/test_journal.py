"""What the journal as a whole promises: files, closing, and who waits."""

import os
import stat
from pathlib import Path

import pytest

from rkllm_mqtt.store.errors import JournalClosed


async def test_folder_and_files_belong_to_their_owner_alone(opened, new_job, path, admitted):
    umask = os.umask(0)
    try:
        async with opened(ballast_mb=1) as journal:
            await admitted(journal, new_job("a"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            assert journal.bytes >= path.stat().st_size > 0
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes == {f"journal.db{suffix}": 0o600 for suffix in ("", "-wal", "-shm", ".lock", ".ballast")}


async def test_a_file_that_others_could_read_is_made_private(opened, path):
    async with opened():
        pass
    path.chmod(0o644)
    async with opened():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(f"{path}-wal").stat().st_mode) == 0o600


async def test_what_was_asked_before_close_is_stored_and_later_calls_are_refused(opened, new_job):
    async with opened() as journal:
        asked = [journal.admit(new_job(f"{n}"), may_insert=True, receipt=None) for n in range(300)]
    assert all(admission.result().fresh for admission in asked)
    with pytest.raises(JournalClosed):
        await journal.counts()
    async with opened() as journal:
        assert (await journal.counts())["waiting"] == 300


async def test_a_cancelled_caller_does_not_undo_the_write(opened, new_job):
    async with opened() as journal:
        asked = journal.admit(new_job("a"), may_insert=True, receipt=None)
        asked.cancel()
        assert await journal.find("rock", "kitchen", "a") is not None
