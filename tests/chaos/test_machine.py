"""The simulated machine: clocks, boot and disk of a real process, moved while it runs, without privilege."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest
from chaos.machine import Machine

CHILD = """
import json, os, sqlite3, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
base = sqlite3.connect(folder / "journal.db", isolation_level=None)
base.execute("PRAGMA journal_mode = WAL")
base.execute("CREATE TABLE IF NOT EXISTS t (x)")
ballast = os.open(folder / "ballast", os.O_RDWR | os.O_CREAT)
for line in sys.stdin:
    failed = None
    try:
        match line.split():
            case ["insert", size]:
                base.execute("INSERT INTO t VALUES (?)", ("x" * int(size),))
            case ["hold", size]:
                os.posix_fallocate(ballast, 0, int(size))
            case ["release"]:
                os.unlink(folder / "ballast")
    except (sqlite3.Error, OSError) as exc:
        failed = str(exc)
    disk = os.statvfs(folder)
    told = {
        "wall": time.time(), "boot": time.clock_gettime(time.CLOCK_BOOTTIME), "mono": time.monotonic(),
        "id": Path("/proc/sys/kernel/random/boot_id").read_text(), "failed": failed,
        "free": disk.f_bavail * disk.f_frsize, "rows": base.execute("SELECT count(*) FROM t").fetchone()[0],
    }
    print(json.dumps(told), flush=True)
"""


@pytest.fixture
def board(tmp_path):
    """A machine, and a process on it that answers a line with what it sees."""
    disk = tmp_path / "disk"
    disk.mkdir()
    machine = Machine(tmp_path, disk)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **machine.environment},
    )

    def ask(line=""):
        child.stdin.write(line + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    ask()  # its files are there
    yield machine, ask
    child.communicate()
    machine.close()


def test_the_wall_clock_jumps_and_the_others_do_not(board):
    machine, ask = board
    before = ask()
    assert abs(before["wall"] - time.time()) < 60
    machine.step_wall(-86_400 * 400)
    after = ask()
    assert after["wall"] - before["wall"] == pytest.approx(-86_400 * 400, abs=60)
    assert after["wall"] == pytest.approx(machine.wall_s(), abs=60)
    assert 0 <= after["mono"] - before["mono"] < 60
    assert 0 <= after["boot"] - before["boot"] < 60
    machine.set_wall(None)
    assert abs(ask()["wall"] - time.time()) < 60


def test_a_reboot_has_another_id_and_begins_to_count_anew(board):
    machine, ask = board
    before = ask()
    machine.reboot()
    after = ask()
    assert after["id"] != before["id"]
    assert 8 <= after["boot"] < 60
    assert after["mono"] >= before["mono"]


def test_a_full_disk_refuses_what_grows_and_takes_what_is_overwritten(board):
    machine, ask = board
    assert ask("insert 100")["failed"] is None
    machine.limit_disk(50_000)
    told = ask()
    assert 40_000 < told["free"] <= 50_000
    answers = [ask("insert 9000") for _ in range(10)]
    assert [answer["failed"] for answer in answers[:3]] == [None] * 3
    assert answers[-1]["failed"] == "database or disk is full"
    assert answers[-1]["rows"] < 11
    assert machine.free_bytes < 9000
    machine.limit_disk(None)
    assert ask("insert 9000")["failed"] is None


def test_a_failing_disk_takes_nothing_until_it_is_whole(board):
    machine, ask = board
    machine.fail_disk(errno.EROFS)
    told = ask("insert 9000")
    assert "I/O error" in told["failed"]
    assert told["rows"] == 0
    machine.fail_disk(None)
    assert ask("insert 9000")["rows"] == 1


def test_what_is_set_aside_and_given_back_counts(board):
    machine, ask = board
    machine.limit_disk(100_000)
    assert ask("hold 80000")["failed"] is None
    assert machine.free_bytes == 20_000
    assert "No space left" in ask("hold 200000")["failed"]
    ask("release")
    assert machine.free_bytes == 100_000
