"""The promise of `runtime/growth.py`: growth from run to run is noticed; what the first run takes is none."""

import pytest

from rkllm_mqtt.runtime.growth import Growth


def test_what_the_first_run_takes_is_no_growth():
    growth = Growth(100)
    growth.look(5_000)
    assert (growth.mb, growth.too_large) == (0, False)


@pytest.mark.parametrize(("after_mb", "too_large"), [(250, False), (300, False), (300.5, True), (50, False)])
def test_it_is_too_large_beyond_the_limit(after_mb, too_large):
    growth = Growth(100)
    for memory_mb in (200, 230, after_mb):
        growth.look(memory_mb)
    assert growth.too_large is too_large
    assert growth.mb == after_mb - 200


def test_without_a_limit_nothing_is_too_large():
    growth = Growth(0)
    growth.look(1)
    growth.look(1_000_000)
    assert not growth.too_large


def test_a_reading_that_failed_changes_nothing():
    growth = Growth(100)
    growth.look(None)
    growth.look(200)
    growth.look(None)
    growth.look(320)
    assert growth.too_large
