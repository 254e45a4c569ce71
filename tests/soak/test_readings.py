"""The promise of `soak/readings.py`: each kind of growth is found, and an honest daemon is not accused."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from soak.readings import POOLED_THREADS, Reading, growth, quarters, read

IDLE = Reading(0, 46.0, 15, POOLED_THREADS, 13, 0.2)


def story(**last):
    """Return readings of an hour; those of the last quarter are changed."""
    busy = [Reading(n, 48.0 + n % 3, 16 + n % 2, POOLED_THREADS, 15 + n % 9, 4.0) for n in range(400)]
    return busy[:300] + [
        replace(one, **{key: change(one) for key, change in last.items()}) for one in busy[300:]
    ]


def test_what_goes_up_and_down_is_no_growth():
    assert growth(IDLE, quarters(story()), replace(IDLE, rss_mb=48.0, journal_mb=3.0)) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [("rss_mb", lambda one: one.rss_mb * 1.04), ("journal_mb", lambda one: one.journal_mb * 1.3 + 1)],
)
def test_a_last_quarter_above_the_second_is_growth(name, change):
    (said,) = growth(IDLE, quarters(story(**{name: change})), IDLE)
    assert "in the last" in said


@pytest.mark.parametrize("name", ["descriptors", "threads", "tasks"])
def test_one_that_is_left_when_the_daemon_is_idle_again_is_growth(name):
    (said,) = growth(IDLE, quarters(story()), replace(IDLE, **{name: getattr(IDLE, name) + 1}))
    assert said.startswith(name)


def test_a_thread_of_a_pool_that_came_late_is_no_growth():
    assert growth(replace(IDLE, threads=POOLED_THREADS - 2), quarters(story()), IDLE) == []


def test_a_journal_that_had_no_time_to_reach_its_size_is_not_accused():
    larger = quarters(story(journal_mb=lambda one: one.journal_mb * 3))
    assert growth(IDLE, larger, IDLE, shows_retention=False) == []


def test_a_process_is_read_as_the_kernel_tells_it(tmp_path):
    journal = tmp_path / "journal.db"
    journal.write_bytes(bytes(1_048_576))
    Path(f"{journal}-wal").write_bytes(bytes(524_288))
    before = read(os.getpid(), journal, 3, 1.5)
    with (tmp_path / "open").open("w"):
        during = read(os.getpid(), journal, 3, 1.5)
    assert during.descriptors == before.descriptors + 1
    assert (before.journal_mb, before.tasks, before.at_s) == (1.5, 3, 1.5)
    assert before.rss_mb > 5
    assert before.threads >= 1
