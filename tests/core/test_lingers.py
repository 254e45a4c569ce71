"""The promise of `core/lingers.py`: waits as long as a client needs, and for nobody who never comes."""

import pytest

from rkllm_mqtt.core.lingers import Lingers


def rounds(lingers, gap_s, count, *, client="ha", at=0.0):
    """Let a client get calls and come back so often; return what it would be waited for next."""
    for _ in range(count):
        lingers.called(client, at)
        if gap_s is not None:
            lingers.came(client, at + gap_s)
        at += 1_000
    return lingers.called(client, at)


def test_an_unknown_client_is_waited_for_the_whole_time():
    assert Lingers(1.0).called("ha", 0) == 1.0
    assert Lingers(1.0).expects("ha")


@pytest.mark.parametrize("gap_s", [0.01, 0.1, 0.4])
def test_a_known_one_is_waited_for_a_little_longer_than_it_needs(gap_s):
    waits_s = rounds(Lingers(1.0), gap_s, 5)
    assert gap_s < waits_s < 1.5 * gap_s + 0.05


def test_who_never_comes_is_not_waited_for_until_it_comes():
    lingers = Lingers(1.0)
    assert rounds(lingers, None, 3) == 0
    assert not lingers.expects("ha")
    lingers.came("ha", 3_000.2)
    assert rounds(lingers, 0.2, 3, at=10_000) > 0.2


def test_who_comes_too_late_more_often_than_in_time_is_not_waited_for():
    lingers = Lingers(1.0)
    rounds(lingers, 0.2, 2)
    assert rounds(lingers, 5.0, 4, at=10_000) == 0


def test_who_gets_calls_again_without_coming_has_missed_a_round():
    lingers = Lingers(1.0)
    assert [lingers.called("ha", at) for at in (0, 10, 20, 30)] == [1.0, 1.0, 1.0, 0.0]


def test_results_that_nobody_waits_for_teach_nothing():
    lingers = Lingers(1.0)
    lingers.came("ha", 5)
    assert lingers.called("ha", 10) == 1.0


def test_nobody_is_waited_for_when_it_is_switched_off():
    assert Lingers(0.0).called("ha", 0) == 0
    assert not Lingers(0.0).expects("ha")


def test_so_many_clients_are_remembered():
    lingers = Lingers(1.0, remembered=2)
    rounds(lingers, 0.1, 4, client="a")
    for name in ("b", "c"):
        lingers.called(name, 0)
    assert lingers.called("a", 9_000) == 1.0
