"""What was acknowledged survives a kill at any moment."""

import subprocess
import sys

import pytest

from rkllm_mqtt.core.job import Delivery, JobEvent, JobState

WRITE_FOR_EVER = """
import asyncio, itertools, os, sys
from pathlib import Path
from rkllm_mqtt.core.job import Delivery, JobEvent, Priority
from rkllm_mqtt.store.admission import NewJob
from rkllm_mqtt.store.journal import Journal

def say(word, job):
    os.write(1, f"{word} {job}\\n".encode())

async def sender(journal, client):
    for number in itertools.count():
        name = f"{client}-{number}"
        new = NewJob("rock", client, name, bytes(32), Priority.NORMAL, 1.0, None, "{}", "{}")
        seq = (await journal.admit(new, may_insert=True, receipt=None)).known.seq
        say("accepted", name)
        await journal.claim(seq, 1)
        say("claimed", name)
        await journal.finish(seq, JobEvent.COMPLETED, name.encode(), Delivery.PENDING)
        say("finished", name)

async def main():
    journal = await Journal.open(Path(sys.argv[1]), ballast_mb=0)
    await asyncio.gather(*(sender(journal, f"c{number}") for number in range(50)))

asyncio.run(main())
"""


@pytest.fixture
def acknowledged(path):
    """Kill a writing process in the middle of group commits; yield the last word said of each job."""

    def kill_after(lines):
        command = [sys.executable, "-c", WRITE_FOR_EVER, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            said = [process.stdout.readline() for _ in range(lines)]
            process.kill()
            said += process.stdout.readlines()
        # The last line may be cut off by the kill.
        words = [line.decode().split() for line in said if line.endswith(b"\n")]
        return {name: word for word, name in words}

    return kill_after


@pytest.mark.parametrize("lines", [1, 777, 2500])
async def test_every_acknowledged_operation_survives_kill_9(opened, path, acknowledged, lines):
    last_words = acknowledged(lines)
    allowed = {
        "accepted": {JobState.WAITING, JobState.RUNNING},
        "claimed": {JobState.RUNNING, JobState.SUCCEEDED},
        "finished": {JobState.SUCCEEDED},
    }
    async with opened() as journal:
        for name, word in last_words.items():
            job = await journal.find("rock", name.split("-")[0], name)
            assert job is not None, (name, word)
            assert job.state in allowed[word], (name, word)
            assert job.outcome == (name.encode() if job.state is JobState.SUCCEEDED else None)
        undelivered = (await journal.recover()).undelivered
        counts = await journal.counts()
    assert len(undelivered) == counts["succeeded"]
    # At most one operation of each sender was on its way.
    assert sum(counts.values()) - counts["undelivered"] - len(last_words) <= 50


async def test_a_crash_between_any_two_operations_leaves_exactly_what_was_acknowledged(
    opened, new_job, crash_copy
):
    async with opened() as journal:
        steps = [
            lambda: journal.admit(new_job("a"), may_insert=True, receipt=None),
            lambda: journal.admit(new_job("b"), may_insert=True, receipt=None),
            lambda: journal.claim(1, 1),
            lambda: journal.requeue(1, 1),
            lambda: journal.request_cancel(2),
            lambda: journal.readdress(2, "elsewhere"),
            lambda: journal.claim(1, 2),
            lambda: journal.finish(1, JobEvent.COMPLETED, b"one", Delivery.PENDING),
            lambda: journal.finish(2, JobEvent.CANCEL_CONFIRMED, b"two", Delivery.NONE),
            lambda: journal.delivered(1, Delivery.DONE),
            lambda: journal.set_last("rock", "kitchen", 9.0),
            lambda: journal.set_meta("uid", "x"),
            lambda: journal.purge(journal.now() + 1),
        ]
        for step in steps:
            await step()
            expected = await everything(journal)
            async with opened(crash_copy(journal.path)) as survivor:
                assert await everything(survivor) == expected


async def everything(journal):
    counts = await journal.counts()
    jobs = [await journal.find("rock", "kitchen", name) for name in "ab"]
    return counts, jobs, await journal.lasts(), dict(journal.meta)
