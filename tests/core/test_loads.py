"""The promise of `core/loads.py`: a guess by the size of the file, then what this board really took."""

import json

import pytest

from rkllm_mqtt.core.loads import Loads


def test_a_larger_file_is_expected_to_take_longer_until_a_real_load_was_seen():
    loads = Loads()
    loads.expect("small", 500_000_000)
    loads.expect("large", 4_000_000_000)
    assert 0 < loads.seconds("unknown") < loads.seconds("small") < loads.seconds("large")
    loads.learn("large", 0.25)
    assert loads.seconds("large") == 0.25


def test_one_strange_load_moves_nothing_and_old_ones_are_forgotten():
    loads = Loads()
    for seconds in (5.0, 5.0, 300.0):
        loads.learn("m", seconds)
    assert loads.seconds("m") == 5.0
    for _ in range(5):
        loads.learn("m", 2.0)
    assert loads.seconds("m") == 2.0


def test_what_was_learned_survives_a_restart_and_a_replaced_file_does_not():
    before, after = Loads(), Loads()
    before.learn("m", 7.5)
    after.expect("m", 100)
    after.resume(json.loads(json.dumps(before.to_json())))
    assert after.seconds("m") == 7.5
    after.expect("m", 100)
    assert after.seconds("m") == 7.5
    after.expect("m", 250_000_000)
    assert after.seconds("m") == pytest.approx(1.5)


def test_what_was_seen_since_the_start_counts_more_than_what_was_kept():
    loads = Loads()
    for _ in range(4):
        loads.learn("m", 1.0)
    loads.resume({"m": [9.0] * 5})
    assert loads.to_json() == {"m": [9.0, 1.0, 1.0, 1.0, 1.0]}
    assert loads.seconds("m") == 1.0
