"""Journals on real files, jobs to put into them, and coroutine tests."""

import asyncio
import hashlib
import inspect
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rkllm_mqtt.core.job import Delivery, JobEvent, Priority
from rkllm_mqtt.store.admission import NewJob, Receipt
from rkllm_mqtt.store.journal import Journal


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a coroutine test in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def opened(path):
    """An opener: `async with opened() as journal`; keywords go to `Journal.open`."""

    @asynccontextmanager
    async def open_and_close(where: Path = path, **keywords):
        journal = await Journal.open(where, **{"ballast_mb": 0} | keywords)
        try:
            yield journal
        finally:
            await journal.close()

    return open_and_close


@pytest.fixture
def new_job():
    """A maker of jobs that differ in their id."""

    def make(request_id="a", *, client="kitchen", request='{"prompt":"hello"}', **fields):
        defaults = {
            "target": "rock",
            "client": client,
            "id": request_id,
            "sha256": hashlib.sha256(request.encode()).digest(),
            "priority": Priority.NORMAL,
            "accepted_at": 1_800_000_000.5,
            "deadline": None,
            "request": request,
            "address": '{"reply":"rkllm/rock/client/kitchen/reply"}',
        }
        return NewJob(**defaults | fields)

    return make


@pytest.fixture
def new_receipt():
    def make(*, mid=7, redelivered=True, **fields):
        defaults = {"session": "s1", "topic": "rkllm/rock/client/kitchen/request", "sha256": b"\x01" * 32}
        return Receipt(mid=mid, redelivered=redelivered, **defaults | fields)

    return make


@pytest.fixture
def admitted():
    """Store a new job and return its record."""

    async def admit(journal, new):
        return (await journal.admit(new, may_insert=True, receipt=None)).known

    return admit


@pytest.fixture
def finished(admitted):
    """Store a new job, run it to success and return its `seq`."""

    async def finish(journal, new, delivery=Delivery.PENDING):
        job = await admitted(journal, new)
        await journal.claim(job.seq, 1)
        await journal.finish(job.seq, JobEvent.COMPLETED, b"done", delivery)
        return job.seq

    return finish


@pytest.fixture
def crash_copy(tmp_path):
    """A copier of what a kill at this moment leaves on disk, without lock and ballast."""
    copies = iter(range(10_000))

    def copy(path: Path) -> Path:
        folder = tmp_path / f"crash-{next(copies)}"
        folder.mkdir(mode=0o700)
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copy(f"{path}{suffix}", folder / f"journal.db{suffix}")
        return folder / "journal.db"

    return copy
