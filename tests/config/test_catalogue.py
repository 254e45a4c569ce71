"""The promise of `config/catalogue.py`: one list, in which names are found, and of whose changes all hear."""

from pathlib import Path

import pytest

from rkllm_mqtt.config import Config, LoraConfig, ModelConfig
from rkllm_mqtt.config.catalogue import DEMO, Catalogue, Change, Entry, configured_catalogue
from rkllm_mqtt.core.errors import Code, Fault

FAULT = Fault(Code.MODEL_ERROR, "is empty", "Copy it again.")


def entry(name, fault=None, **settings):
    return Entry(name, ModelConfig(id=name, file=Path(f"/m/{name}.rkllm"), **settings), fault)


TUNED = entry("talk", loras=(LoraConfig(id="tuned", file=Path("/m/t.lora")),))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (None, ("talk", None)),
        ("talk", ("talk", None)),
        ("talk:tuned", ("talk", "tuned")),
        ("code", ("code", None)),
        ("code:tuned", None),
        ("talk:", None),
        (":tuned", None),
        ("", None),
        ("other", None),
    ],
)
def test_a_name_means_a_model_and_perhaps_one_of_its_adapters(name, found):
    assert Catalogue([TUNED, entry("code")]).find(name) == found


def test_all_names_are_told_and_the_first_model_is_the_default():
    catalogue = Catalogue([TUNED, entry("code", FAULT)])
    assert catalogue.names == ("talk", "talk:tuned", "code")
    assert (catalogue.default, catalogue.ids) == ("talk", ("talk", "code"))
    assert (catalogue.fault("talk"), catalogue.fault("code")) == (None, FAULT)


def test_who_listens_hears_what_changed_when_it_has():
    catalogue, heard = Catalogue([TUNED, entry("code")]), []
    catalogue.listen(lambda change: heard.append((change, catalogue.ids)))
    catalogue.put([TUNED, entry("code")])
    assert heard == []
    catalogue.put([entry("code", FAULT), entry("new")])
    change = Change(frozenset({"new"}), frozenset({"talk"}), frozenset({"code"}))
    assert heard == [(change, ("code", "new"))]


def test_another_order_is_a_change_for_it_changes_the_default():
    catalogue, heard = Catalogue([TUNED, entry("code")]), []
    catalogue.listen(heard.append)
    catalogue.put([entry("code"), TUNED])
    assert catalogue.default == "code"
    assert heard == [Change(frozenset(), frozenset(), frozenset())]


def test_a_configuration_without_models_has_the_demonstration_model():
    catalogue = configured_catalogue(Config())
    assert (catalogue.ids, catalogue.settings(DEMO), catalogue.models) == ((DEMO,), None, ())
    assert catalogue.find(None) == (DEMO, None)
