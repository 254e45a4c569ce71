"""One journal, one daemon."""

import os
import subprocess
import sys

import pytest

from rkllm_mqtt.store.errors import JournalInUse, StoreError
from rkllm_mqtt.store.lock import JournalLock

HOLD = """
import sys
from pathlib import Path
from rkllm_mqtt.store.lock import JournalLock
JournalLock(Path(sys.argv[1])).take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(path):
    """Another process that holds the journal."""
    path.parent.mkdir()
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


async def test_a_second_daemon_is_refused_by_the_name_of_the_first(opened, other):
    with pytest.raises(JournalInUse, match=f"process {other.pid}") as refused:
        async with opened():
            pass
    assert refused.value.pid == other.pid
    other.kill()
    other.wait()
    async with opened() as journal:
        assert journal.healthy


async def test_the_same_process_cannot_open_it_twice_but_again_after_close(opened):
    async with opened():
        with pytest.raises(JournalInUse) as refused:
            async with opened():
                pass
        assert refused.value.pid == os.getpid()
    async with opened():
        pass


def test_an_unreadable_owner_is_still_an_owner(path):
    path.parent.mkdir()
    lock = JournalLock(path)
    lock.take()
    os.truncate(f"{path}.lock", 0)
    with pytest.raises(JournalInUse, match="another process") as refused:
        JournalLock(path).take()
    assert refused.value.pid is None
    lock.release()
    lock.release()


def test_a_lock_that_cannot_be_opened_is_told_as_such(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be locked: Not a directory$") as failed:
        JournalLock(tmp_path / "file" / "journal.db").take()
    assert f"give {tmp_path / 'file'}" in failed.value.hint
