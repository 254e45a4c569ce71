"""The promise that the daemon runs for a year, in its short form: two minutes, twenty times as fast."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_worker_and_broker_restarts_leave_nothing_behind(tmp_path):
    # So short a time is still part of the start: a few percent of memory more say nothing yet.
    line = ["-m", "soak", "--minutes", "2", "--speed", "20", "--rss-tolerance", "0.1", "--dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *line], cwd=ROOT, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, counts = done.stdout.splitlines()
    numbers = [int(word) for word in counts.replace(",", "").split() if word.isdigit()]
    answered, _, kills, replaced, brokers = numbers
    assert answered >= 20
    assert min(kills, replaced, brokers) >= 2
