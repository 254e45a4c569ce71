"""`python -m bench` measures both services and leaves a table and a file without names of this machine."""

import asyncio
import json
import socket
import subprocess
import sys

import pytest

from bench import models
from bench.__main__ import measure
from bench.asking import Broken
from bench.context import Context
from bench.figure import Figure
from bench.rows import classes, clients, deciding, sharing
from rkllmrt import simulator


def test_a_quick_row_prints_a_table_and_writes_its_figures(root, tmp_path):
    results = tmp_path / "results.json"
    line = [sys.executable, "-m", "bench", "--quick", "--only", "footprint", "--results", str(results)]
    told = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    kept = json.loads(results.read_text())
    daemon, worker = kept["figures"]
    assert daemon["name"] == "memory of the daemon"
    assert daemon["ours"] > daemon["thin"] > 5
    assert worker["ours"] > 5
    assert kept["failed"] == {}
    assert all(one["name"] in told.stdout for one in kept["figures"])
    assert socket.gethostname() not in results.read_text()
    assert str(tmp_path) not in results.read_text()


def test_a_broken_row_says_why_and_the_others_are_still_measured(tmp_path):
    async def lossy(_context):
        error = Broken("3 answers did not come")
        error.add_note("what the daemon said last")
        raise error

    async def good(context):
        return [Figure("rounds", context.rounds(40))]

    context = Context(tmp_path, tmp_path, tmp_path, quick=True)
    figures, failed = asyncio.run(measure(context, {"lossy": lossy, "good": good}))
    assert [one.name for one in figures] == ["rounds"]
    assert failed == {"lossy": "3 answers did not come\nwhat the daemon said last"}


def test_two_hundred_clients_that_ask_within_two_seconds_are_accepted_and_take_little_memory(tmp_path):
    """The bounds are for a machine that is busy with other tests; `make bench` asks a thousand."""
    context = Context(tmp_path, tmp_path, simulator.build(), quick=True)
    late, memory = asyncio.run(clients.measure(context))
    assert late.ours < 2_500
    assert memory.ours < 80


def test_choosing_among_ten_thousand_is_measured_beside_the_oldest_first(tmp_path):
    context = Context(tmp_path, tmp_path, tmp_path, quick=True)
    many, one, telling = asyncio.run(deciding.measure(context))
    for figure in (many, one):
        assert 0 < figure.ours < 100
        assert figure.thin >= 0
        assert figure.goal.bound == 1.0
    assert telling.ours > 0


def test_in_order_of_arrival_who_came_first_has_it_all():
    shares = sharing.shares_in_order()
    assert sum(shares.values()) == pytest.approx(100)
    assert shares["normal"] > 90
    assert shares["background"] == 0


def test_the_same_afternoon_asks_for_most_of_the_slot_each_time():
    arrivals = classes.arrivals_of(240)
    assert arrivals == classes.arrivals_of(240)
    assert {arrival.priority for arrival in arrivals} == {"interactive", "normal", "background"}
    assert 0.6 < sum(models.slot_s(arrival.question) for arrival in arrivals) / 240 < 1
