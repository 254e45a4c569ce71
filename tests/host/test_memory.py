"""Memory of the board and of processes."""

import subprocess
import sys

from rkllm_mqtt.host.memory import Memory, parse_meminfo, read_memory, rss_mb


def test_meminfo_is_told_in_megabytes() -> None:
    text = "MemTotal:        8038604 kB\nMemFree:  1 kB\nMemAvailable:    6012400 kB\nHugePages_Total:   0\n"
    assert parse_meminfo(text) == Memory(total_mb=7850, available_mb=5871)


def test_this_computer_has_memory() -> None:
    memory = read_memory()
    assert memory.total_mb
    assert memory.available_mb
    assert memory.total_mb >= memory.available_mb


def test_a_living_process_has_resident_memory_and_a_gone_one_has_none() -> None:
    own = rss_mb()
    assert own is not None
    assert own > 1
    script = "print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert (rss_mb(child.pid) or 0) > 1
    assert rss_mb(child.pid) is None
