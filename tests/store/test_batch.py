"""One transaction for many operations, on a real database."""

import asyncio
import sqlite3

import pytest

from rkllm_mqtt.store.batch import Asked, commit, resolve
from rkllm_mqtt.store.clock import ClockSource, JournalClock, load_checkpoint
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.schema import open_database


@pytest.fixture
def database(path):
    path.parent.mkdir()
    connection = open_database(path)
    yield connection
    connection.close()


@pytest.fixture
def committed(database):
    clock = JournalClock(ClockSource())

    async def run(*operations):
        loop = asyncio.get_running_loop()
        batch = [Asked(operation, loop.create_future()) for operation in operations]
        answers, has_changed = commit(database, batch, clock.checkpoint)
        resolve(answers)
        return await asyncio.gather(*(asked.future for asked in batch), return_exceptions=True), has_changed

    return run


def put(key):
    return lambda connection: connection.execute("INSERT INTO meta VALUES (?, 'x')", (key,)).rowcount


def keys(connection):
    return [key for (key,) in connection.execute("SELECT key FROM meta ORDER BY key")]


async def test_an_operation_that_raises_is_undone_alone(committed):
    def raises_after_writing(connection):
        put("half")(connection)
        raise LookupError("no")

    results, _ = await committed(put("a"), raises_after_writing, put("b"), keys)
    assert results[0] == results[2] == 1
    assert isinstance(results[1], LookupError)
    assert results[3] == ["a", "b"]


async def test_a_broken_constraint_fails_its_operation_alone(committed):
    results, _ = await committed(put("a"), put("a"), put("b"), keys)
    assert isinstance(results[1], StoreError)
    assert results[3] == ["a", "b"]


async def test_a_failing_database_takes_the_whole_batch_back(committed, database):
    with pytest.raises(sqlite3.OperationalError):
        await committed(put("a"), lambda connection: connection.execute("SELECT * FROM nowhere"))
    assert keys(database) == []
    assert not database.in_transaction


async def test_only_a_change_stores_the_clock(committed, database):
    _, has_changed = await committed(keys)
    assert (has_changed, load_checkpoint(database)) == (False, None)
    _, has_changed = await committed(put("a"))
    assert has_changed
    assert load_checkpoint(database) is not None


async def test_a_cancelled_future_does_not_disturb_the_others(database):
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3)]
    futures[1].cancel()
    resolve([(future, number, None) for number, future in enumerate(futures)])
    assert (futures[0].result(), futures[2].result()) == (0, 2)
