"""The denominator is what the library wrote down, each run once."""

import json

from bench.library_log import LibraryLog


def test_each_run_is_returned_once_and_in_order(tmp_path):
    log = LibraryLog(tmp_path / "runs")
    assert log.new_runs() == []
    line = {"run": 1, "entry_ns": 1_000_000, "return_ns": 10_000_000, "prefill_tokens": 3, "emitted": 6}
    log.path.write_text(json.dumps(line) + "\n")
    (run,) = log.new_runs()
    assert (run.slot_s, run.tokens, run.computed) == (0.009, 6, 3)
    assert log.new_runs() == []
    with log.path.open("a") as file:
        file.write(json.dumps({**line, "entry_ns": 2}) + "\n")
    assert [run.entry_ns for run in log.new_runs()] == [2]
