"""SQLite's codes become errors that say whose turn it is."""

import sqlite3

import pytest

from rkllm_mqtt.store.errors import JobError, StoreCorrupt, StoreError, StoreFull, UnknownJob, from_sqlite


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, StoreFull, "no space"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, StoreFull, "no space"),
        (sqlite3.SQLITE_CORRUPT, StoreCorrupt, "damaged"),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt, "damaged"),
        (sqlite3.SQLITE_CORRUPT_VTAB, StoreCorrupt, "damaged"),
        (sqlite3.SQLITE_READONLY, StoreError, "cannot be written"),
        (sqlite3.SQLITE_BUSY, StoreError, "locked"),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreError, "failed"),
    ],
)
def test_a_code_of_sqlite_becomes_the_error_of_its_meaning(code, kind, words):
    cause = sqlite3.OperationalError("words of sqlite")
    cause.sqlite_errorcode = code
    cause.sqlite_errorname = "SQLITE_NAME"
    error = from_sqlite(cause)
    assert type(error) is kind
    assert words in str(error)
    assert "words of sqlite" in str(error)
    assert error.__cause__ is cause


def test_an_error_without_a_code_is_still_a_store_error():
    assert type(from_sqlite(sqlite3.ProgrammingError("closed"))) is StoreError


def test_errors_of_a_job_carry_its_number_and_are_errors_of_the_store():
    error = UnknownJob(7)
    assert isinstance(error, JobError)
    assert isinstance(error, StoreError)
    assert error.seq == 7
    assert "job 7" in str(error)
