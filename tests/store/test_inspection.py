"""An inspection finds every kind of row that the daemon could not have written."""

import sqlite3

import pytest

from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.store.inspection import inspect
from rkllm_mqtt.store.reading import reader
from rkllm_mqtt.store.schema import SCHEMA_VERSION

REQUEST = ChatRequest(messages=({"role": "user", "content": "hi"},), model="m", max_tokens=9).to_json()
ADDRESS = Address(Mailbox("rkllm", "rock", "kitchen"), "a").to_json()


def inspected(path):
    with reader(path) as connection:
        return inspect(connection, path)


async def build(opened, new_job):
    """Leave a journal with jobs 1 to 6: waiting, running, succeeded, failed, cancelled, expired."""
    async with opened() as journal:
        for name in "abcdef":
            new = new_job(name, request=REQUEST, address=ADDRESS)
            await journal.admit(new, may_insert=True, receipt=None)
        await journal.claim(2, 1)
        await journal.claim(3, 1)
        await journal.finish(3, JobEvent.COMPLETED, b'{"text":"yes"}', Delivery.PENDING)
        await journal.finish(4, JobEvent.GAVE_UP, b"{}", Delivery.NONE)
        await journal.finish(5, JobEvent.CANCEL_CONFIRMED, b"{}", Delivery.PENDING)
        await journal.finish(6, JobEvent.DEADLINE_PASSED, b"{}", Delivery.PENDING)
        await journal.delivered(6, Delivery.DONE)


async def test_a_journal_with_a_job_in_each_state_is_sound_and_measured(opened, path, new_job):
    await build(opened, new_job)
    found = inspected(path)
    assert found.problems == ()
    assert found.schema == SCHEMA_VERSION
    states = ("waiting", "running", "succeeded", "failed", "cancelled", "expired")
    assert found.jobs == dict.fromkeys(states, 1) | {"undelivered": 2}
    assert found.request_bytes == 6 * len(REQUEST)
    assert found.outcome_bytes == len(b'{"text":"yes"}') + 3 * 2
    assert found.file_bytes == path.stat().st_size
    assert 0.0 <= found.oldest_finished_s < 600.0


DAMAGE = {
    "no_request": "DELETE FROM requests WHERE seq = 3",
    "no_outcome": "DELETE FROM outcomes WHERE seq = 3",
    "early_outcome": "INSERT INTO outcomes VALUES (1, x'7b7d')",
    "never_ran": "UPDATE jobs SET attempt = 0 WHERE seq IN (2, 3)",
    "finished_in_future": "UPDATE jobs SET finished_at = finished_at + 1e9 WHERE seq = 4",
    "number_reused": "UPDATE sqlite_sequence SET seq = 2 WHERE name = 'jobs'",
    "no_clock": "DELETE FROM clock",
    "orphans": "DELETE FROM jobs WHERE seq = 3",
    "illegal_state": "UPDATE jobs SET state = 'succeeded' WHERE seq = 1",
    "unreadable": "UPDATE requests SET request = '{}' WHERE seq IN (1, 2)",
    "unreadable_prefixes": "INSERT INTO prefixes VALUES ('ha', 'voice', '{}', 1, 1, '')",
}


ILLEGAL = (
    "state = 'sleeping'",
    "state = 'failed'",
    "finished_at = 1.0",
    "priority = 'royal'",
    "delivery = 'lost'",
    "delivery = 'pending'",
)


@pytest.mark.parametrize("change", ILLEGAL)
async def test_a_state_that_does_not_exist_is_found(opened, path, new_job, change):
    await build(opened, new_job)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(f"UPDATE jobs SET {change} WHERE seq = 1")
    connection.close()
    assert "illegal_state" in [problem.code for problem in inspected(path).problems]


@pytest.mark.parametrize("code", DAMAGE)
async def test_each_kind_of_damage_is_found_with_its_rows(opened, path, new_job, code):
    await build(opened, new_job)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    changed = connection.execute(DAMAGE[code]).rowcount
    connection.close()
    found = inspected(path)
    problem = next((problem for problem in found.problems if problem.code == code), None)
    assert problem is not None, found.problems
    assert problem.count >= (changed if code in ("never_ran", "unreadable") else 1)
    assert problem.examples


async def test_an_index_that_disagrees_with_its_table_is_found(opened, path, new_job):
    await build(opened, new_job)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    sql = "CREATE UNIQUE INDEX jobs_by_id ON jobs (target, id, client)"
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'jobs_by_id'", (sql,))
    connection.close()
    assert [problem.code for problem in inspected(path).problems] == ["damaged"]
