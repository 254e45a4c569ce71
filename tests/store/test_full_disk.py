"""A full disk refuses new work, stores finals, and goes on by itself when space is back.

The fault is real: SQLite runs into a page limit, and where the suite may mount, into a small tmpfs.
"""

import asyncio
import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from rkllm_mqtt.core.job import Delivery, JobEvent, JobState
from rkllm_mqtt.store.errors import StoreFull

FILL = '{"prompt":"' + "x" * 20_000 + '"}'


def mount(folder, size_mb):
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def unmount(folder):
    subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount():
    with tempfile.TemporaryDirectory() as folder:
        if not mount(folder, 1):
            return False
        unmount(folder)
        return True


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    assert mount(folder, 16)
    yield folder
    unmount(folder)


async def page_limit(journal, pages):
    """Let SQLite find no space beyond `pages`; 0 takes the limit away."""
    await journal._writer.submit(
        lambda c: c.execute(f"PRAGMA max_page_count = {pages or 4_294_967_294}").fetchone()
    )


async def fill(journal, new_job):
    """Admit until the journal says that it is full; return how many fitted."""
    for number in range(5000):
        try:
            await journal.admit(new_job(f"fill{number}", request=FILL), may_insert=True, receipt=None)
        except StoreFull:
            return number
    raise AssertionError("the disk never became full")


async def until_accepted(journal, new):
    """Resend until there is space again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await journal.admit(new, may_insert=True, receipt=None)
            except StoreFull:
                await asyncio.to_thread(lambda: None)


async def test_a_page_limit_refuses_new_jobs_and_nothing_of_them_is_stored(opened, new_job):
    async with opened(tick_s=60.0) as journal:
        first = (await journal.admit(new_job("first"), may_insert=True, receipt=None)).known
        await page_limit(journal, 60)
        stored = await fill(journal, new_job)
        assert journal.full
        assert not journal.healthy
        assert (await journal.counts())["waiting"] == stored + 1
        known = await journal.admit(new_job("first"), may_insert=True, receipt=None)
        assert known.known == first
        await page_limit(journal, 0)
        await journal.finish(first.seq, JobEvent.GAVE_UP, b"x" * 5000, Delivery.PENDING)
        assert (await journal.record(first.seq)).state is JobState.FAILED
        with pytest.raises(StoreFull):
            await journal.admit(new_job("second"), may_insert=True, receipt=None)


async def test_a_batch_that_finds_no_space_stores_its_finals_or_fails_them(opened, new_job):
    async with opened(tick_s=60.0) as journal:
        seqs = [
            (await journal.admit(new_job(f"{n}"), may_insert=True, receipt=None)).known.seq for n in range(20)
        ]
        await page_limit(journal, 30)
        asked = [journal.finish(seq, JobEvent.GAVE_UP, b"x" * 9000, Delivery.PENDING) for seq in seqs]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for seq, answer in zip(seqs, answers, strict=True):
            outcome = (await journal.record(seq)).outcome
            assert outcome == (None if isinstance(answer, StoreFull) else b"x" * 9000)
        assert any(isinstance(answer, StoreFull) for answer in answers)
        assert "no space" in journal.last_error
        await page_limit(journal, 0)
        withheld = [seq for seq, answer in zip(seqs, answers, strict=True) if isinstance(answer, StoreFull)]
        for seq in withheld:
            await journal.finish(seq, JobEvent.GAVE_UP, b"later", Delivery.PENDING)
        assert journal.last_error == ""


async def test_new_jobs_are_taken_again_when_space_is_back(opened, new_job):
    async with opened(tick_s=0.01) as journal:
        await page_limit(journal, 60)
        await fill(journal, new_job)
        await page_limit(journal, 0)
        assert (await until_accepted(journal, new_job("again"))).fresh
        assert journal.healthy


if can_mount():  # a user who may not mount has the page limit above

    async def test_on_a_real_full_disk_the_ballast_makes_room_for_finals(opened, new_job, small_disk):
        await check_ballast(opened, new_job, small_disk)

    async def test_a_journal_opens_on_a_full_disk_and_says_so(opened, new_job, small_disk):
        filler = small_disk / "filler"
        path = small_disk / "journal.db"
        async with opened(path) as journal:
            await journal.admit(new_job("a"), may_insert=True, receipt=None)
        fill_disk(filler)
        with pytest.raises(StoreFull):
            async with opened(path):
                pass
        filler.unlink()
        (small_disk / "journal.db.ballast").write_bytes(b"x" * (1 << 20))
        fill_disk(filler)
        async with opened(path, ballast_mb=1) as journal:
            assert journal.full
            job = (await journal.recover()).waiting[0]
            await journal.finish(job.seq, JobEvent.GAVE_UP, b"no", Delivery.PENDING)
            with pytest.raises(StoreFull):
                await journal.admit(new_job("b"), may_insert=True, receipt=None)


def fill_disk(filler: Path):
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(filler.parent).f_bavail == 0


async def check_ballast(opened, new_job, folder):
    ballast, filler = folder / "journal.db.ballast", folder / "filler"
    async with opened(folder / "journal.db", ballast_mb=2, tick_s=0.01) as journal:
        assert ballast.stat().st_blocks * 512 >= 2 << 20
        jobs = [
            (await journal.admit(new_job(f"{n}"), may_insert=True, receipt=None)).known for n in range(30)
        ]
        filler.write_bytes(b"x" * (11 << 20))
        await fill(journal, new_job)
        assert journal.full
        assert not ballast.exists()
        for job in jobs:
            await journal.finish(job.seq, JobEvent.GAVE_UP, b"x" * 10_000, Delivery.PENDING)
        with pytest.raises(StoreFull):
            await journal.admit(new_job("late"), may_insert=True, receipt=None)
        filler.unlink()
        assert (await until_accepted(journal, new_job("again"))).fresh
        assert journal.healthy
        assert ballast.stat().st_size == 2 << 20
    async with opened(folder / "journal.db", ballast_mb=2) as journal:
        assert len((await journal.recover()).undelivered) == len(jobs)
