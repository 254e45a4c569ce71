"""The slow disk of the bench is really slow, for Python and for SQLite."""

import os
import subprocess
import sys

from bench.disk import slowed, sync_times_ms

COMMIT = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL"), db.execute("PRAGMA synchronous=FULL"), db.execute("CREATE TABLE t (a)")
began = time.perf_counter()
db.execute("INSERT INTO t VALUES (1)")
print((time.perf_counter() - began) * 1000)
"""


def test_a_commit_of_a_slowed_process_takes_the_delay_longer(tmp_path):
    environ = {**os.environ, **slowed(tmp_path, delay_ms=40)}
    line = [sys.executable, "-c", COMMIT, str(tmp_path / "db")]
    told = subprocess.run(line, env=environ, capture_output=True, text=True, check=True)
    assert float(told.stdout) >= 40
    assert told.stderr == ""


def test_the_probe_syncs_as_often_as_asked_and_leaves_nothing(tmp_path):
    times = sync_times_ms(tmp_path, 3)
    assert len(times) == 3
    assert all(time > 0 for time in times)
    assert list(tmp_path.iterdir()) == []
