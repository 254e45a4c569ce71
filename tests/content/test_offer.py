"""The promise of `content/offer.py`: a tool is found by what a model makes of its name, not by half of it."""

import pytest

from rkllm_mqtt.content.offer import Offer

OFFER = Offer(
    {"turn_on": {}, "Turn-Off": {"properties": {"a": {}}, "required": ["a"]}, "do_it": {}, "doit": {}}
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("turn_on", "turn_on"),
        ("turn-on", "turn_on"),
        ("TurnOn", "turn_on"),
        ("functions.turn_on", "turn_on"),
        ("default_api.turn_off", "Turn-Off"),
        ("do_it", "do_it"),
        ("do-it", None),  # two could be meant
        ("turn", None),
        ("turn_on_all", None),
        ("", None),
        ("<|>", None),
    ],
)
def test_a_name_means_a_tool_only_where_no_other_can_be_meant(written, meant):
    assert OFFER.find(written) == meant


@pytest.mark.parametrize("begun", ["", "t", "Turn-o", "func", "functions.tur", "do"])
def test_the_beginning_of_a_name_may_become_it(begun):
    assert OFFER.may_become(begun)


@pytest.mark.parametrize("begun", ["x", "turn_on_all", "functions.x"])
def test_another_beginning_may_not(begun):
    assert not OFFER.may_become(begun)


def test_a_schema_without_the_usual_members_has_no_properties():
    odd = Offer({"x": {"properties": [], "required": "a"}})
    assert (odd.properties("x"), odd.required("x")) == ({}, ())
    assert (list(OFFER.properties("Turn-Off")), OFFER.required("Turn-Off")) == (["a"], ("a",))


HOUSE = Offer({"light__HassTurnOn": {}, "todo__Add": {}, "list__Add": {}})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("light__HassTurnOn", "light__HassTurnOn"),
        ("HassTurnOn", "light__HassTurnOn"),
        ("hass_turn_on", "light__HassTurnOn"),
        ("light.HassTurnOn", "light__HassTurnOn"),
        ("Add", None),  # two could be meant
        ("todo__Add", "todo__Add"),
        ("TurnOn", None),
    ],
)
def test_a_name_without_its_space_means_the_only_tool_that_has_it(written, meant):
    assert HOUSE.find(written) == meant


def test_its_beginning_may_become_it():
    assert all(HOUSE.may_become(begun) for begun in ("light__", "Hass", "todo", "hass_turn"))
    assert not HOUSE.may_become("TurnOn")
