"""The promises of `core/prefixes.py`: bounded, replaced by name, and valued by when they are used."""

import pytest

from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.prefixes import Prefix, Prefixes, Uses, worth_s

DAY = 739_000


def asked(text="You are a home.", **fields):
    message = {"role": "system", "content": text}
    return ChatRequest(**{"messages": (message,), "model": "qwen", "max_tokens": 1} | fields)


def test_the_same_prefix_lives_longer_and_another_takes_its_name_and_its_uses():
    prefixes = Prefixes()
    first, change, _ = prefixes.register("a", "voice", asked(), 100, now=0)
    first.uses.count(DAY, 7)
    assert change == "registered"
    same, change, _ = prefixes.register("a", "voice", asked(), 50, now=10)
    assert (same, change, same.used_at, same.ttl_s) == (first, "unchanged", 10, 50)
    assert same.changed_at == 0
    other, change, _ = prefixes.register("a", "voice", asked("You are a garden."), 50, now=20)
    assert (change, other.changed_at, len(prefixes)) == ("registered", 20, 1)
    assert other.uses.per_hour(DAY, 7) == 1
    assert prefixes.find("a", "voice") is other


@pytest.mark.parametrize(
    "fields", [{"tools": ({"function": {"name": "on"}},)}, {"model": "x"}, {"lora": "y"}]
)
def test_tools_model_and_adapter_make_it_another_one(fields):
    prefixes = Prefixes()
    prefixes.register("a", "voice", asked(), 100, now=0)
    assert prefixes.register("a", "voice", asked(**fields), 100, now=0)[1] == "registered"


def test_a_client_has_so_many_and_all_together_so_many_the_least_used_go():
    prefixes = Prefixes(most=3, most_of_client=2)
    for now, name in enumerate(("one", "two")):
        assert prefixes.has_room("a", name)
        prefixes.register("a", name, asked(), 100, now)
    assert not prefixes.has_room("a", "three")
    assert prefixes.has_room("a", "two")
    prefixes.register("b", "one", asked(), 100, now=2)
    *_, gone = prefixes.register("c", "one", asked(), 100, now=3)
    assert [prefix.key for prefix in gone] == [("a", "one")]
    assert sorted(prefix.key for prefix in prefixes) == [("a", "two"), ("b", "one"), ("c", "one")]


def test_it_is_forgotten_when_nobody_used_it_for_its_life():
    prefixes = Prefixes()
    old, *_ = prefixes.register("a", "one", asked(), 100, now=0)
    used, *_ = prefixes.register("a", "two", asked(), 100, now=0)
    used.used_at = 60
    assert prefixes.expire(99) == []
    assert prefixes.expire(100) == [old]
    assert list(prefixes) == [used]
    assert (prefixes.remove("a", "two"), prefixes.remove("a", "two")) == ("removed", "absent")


def test_uses_are_expected_at_the_hours_at_which_they_were():
    uses = Uses()
    for day in range(14):
        uses.count(DAY + day, 7)
        uses.count(DAY + day, 7)
    assert uses.per_hour(DAY + 14, 7) == pytest.approx(1.7, abs=0.3)
    assert uses.per_hour(DAY + 14, 6, minute=45) == pytest.approx(0.75 * uses.per_hour(DAY + 14, 7))
    assert uses.per_hour(DAY + 14, 12) == 0
    assert uses.per_hour(DAY + 60, 7) < 0.01


def test_a_new_prefix_is_expected_at_any_hour_and_a_clock_that_steps_back_harms_nothing():
    uses = Uses()
    assert uses.per_hour(DAY, 3) == 1
    uses.count(DAY, 3)
    assert uses.per_hour(DAY - 400, 3) == 1
    uses.count(DAY - 400, 4)
    assert 0 < uses.per_hour(DAY - 399, 4) < 2


def test_uses_survive_the_journal_and_nonsense_counts_nothing():
    uses = Uses()
    for day in range(3):
        uses.count(DAY + day, 7)
    kept = Uses.from_json(uses.to_json())
    assert kept.per_hour(DAY + 3, 7) == pytest.approx(uses.per_hour(DAY + 3, 7), abs=0.01)
    for nonsense in ("", "[]", '{"a": 1}', "[[1], 0, 0]", '[["x"], 0, 0]', "null"):
        assert Uses.from_json(nonsense) == Uses()


def test_what_is_used_often_and_saves_much_is_worth_most_but_never_more_than_it_saves():
    often, seldom = (Prefix("a", name, asked(), 100, 0) for name in ("often", "seldom"))
    for day in range(10):
        for _ in range(4):
            often.uses.count(DAY + day, 7)
        seldom.uses.count(DAY + day, 20)
    when = {"day": DAY + 10, "hour": 7, "minute": 0}
    assert worth_s(often, 3.0, **when) == 3.0
    assert worth_s(seldom, 3.0, **when) == 0
    assert worth_s(often, -1.0, **when) == 0
