"""The promise of `runtime/setbacks.py`: a broken board is asked less and less; a bad moment costs nothing."""

import pytest

from rkllm_mqtt.runtime.setbacks import Setbacks


@pytest.mark.parametrize(
    ("losses", "load_failures", "seconds"),
    [(0, 0, 0.0), (3, 0, 0.0), (4, 0, 0.5), (5, 0, 1.0), (0, 1, 0.5), (0, 4, 4.0), (9, 2, 16.0)],
)
def test_each_setback_doubles_the_pause_and_three_losses_are_free(losses, load_failures, seconds):
    assert Setbacks(losses, load_failures).pause_s(30.0) == seconds


@pytest.mark.parametrize("often", [7, 100, 10**6])
def test_no_pause_is_longer_than_the_longest(often):
    assert Setbacks(load_failures=often).pause_s(30.0) == 30.0
