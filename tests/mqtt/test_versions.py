"""MQTT 5 first, 3.1.1 where the broker cannot, and no settling for less on a mere suspicion."""

import pytest

from rkllm_mqtt.mqtt.versions import DOUBT_S, Version, VersionChoice


def test_mqtt_5_is_tried_first():
    assert VersionChoice("auto").current is Version.V5


def test_a_refusal_of_the_version_is_believed_at_once_and_for_good():
    choice = VersionChoice("auto")
    assert choice.refused()
    assert choice.current is Version.V311
    assert choice.accepted()
    assert choice.current is Version.V311


def test_two_silent_closes_lead_to_3_1_1_and_a_success_there_to_one_more_try_of_5():
    choice = VersionChoice("auto")
    choice.unanswered()
    assert choice.current is Version.V5
    choice.unanswered()
    assert choice.current is Version.V311
    assert not choice.accepted()
    assert choice.current is Version.V5


def test_a_broker_that_was_only_starting_gets_mqtt_5():
    choice = VersionChoice("auto")
    choice.unanswered()
    choice.unanswered()
    choice.accepted()
    assert choice.accepted()
    assert choice.current is Version.V5
    choice.unanswered()
    assert choice.current is Version.V5, "the old suspicion is forgotten"


def test_a_broker_that_closes_on_5_again_keeps_3_1_1():
    choice = VersionChoice("auto")
    choice.unanswered()
    choice.unanswered()
    choice.accepted()
    choice.unanswered()
    assert choice.current is Version.V311
    assert choice.accepted()
    assert choice.current is Version.V311


def test_when_3_1_1_is_closed_too_the_broker_is_simply_not_there():
    choice = VersionChoice("auto")
    for _ in range(3):
        choice.unanswered()
    assert choice.current is Version.V5


@pytest.mark.parametrize("wanted", ["5", "3.1.1"])
def test_a_configured_version_is_never_left(wanted):
    choice = VersionChoice(wanted)
    assert not choice.refused()
    for _ in range(5):
        choice.unanswered()
    assert choice.accepted()
    assert choice.current == wanted


def test_a_broker_that_stalls_is_doubted_at_once_and_not_waited_for_so_long():
    choice = VersionChoice("auto")
    assert choice.patience_s(10) == DOUBT_S
    assert choice.patience_s(0.5) == 0.5
    choice.unanswered(stalled=True)
    assert choice.current is Version.V311
    assert choice.patience_s(10) == 10


def test_a_broker_that_knows_mqtt_5_gets_all_the_time():
    choice = VersionChoice("auto")
    choice.accepted()
    assert choice.patience_s(10) == 10
    assert VersionChoice("5").patience_s(10) == 10
