"""The promise of `config/changes.py`: what can change does, and every other changed key is told."""

import pytest
from pydantic import BaseModel

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.changes import RELOADABLE, changed_keys, take_over


def flat(config):
    keys = set()
    for name in Config.model_fields:
        value = getattr(config, name)
        keys |= (
            {f"{name}.{key}" for key in type(value).model_fields} if isinstance(value, BaseModel) else {name}
        )
    return keys


def configured(**settings):
    return Config.model_validate({"node": "rock", **settings})


def test_every_reloadable_key_exists():
    assert flat(configured()) >= RELOADABLE


@pytest.mark.parametrize("key", sorted(RELOADABLE))
def test_a_reloadable_key_is_taken_over_and_nothing_else(key):
    others = {
        "clients": [{"name": "esp-*"}],
        "models": [{"id": "q", "file": "/q.rkllm"}],
        "models_folder": "/models",
        "presets": {"calm": {"temperature": 0.1}},
        "log": {"level": "warning"},
        "drain_timeout_s": 77,
        "delta_interval_ms": 77,
    }
    section, _, name = key.partition(".")
    value = {"max_attempts": 77, "hold_max_s": 7, "hold_share": 0.1, "idle_warm": False, "tool_linger_s": 0.5}
    new = configured(**{section: others.get(section, {name: value.get(name, 777)})})
    merged, taken, left = take_over(configured(), new)
    assert (taken, left) == ((key,), ())
    assert merged == new


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"mqtt": {"port": 1999}}, "mqtt.port"),
        ({"mqtt": {"tls": {}}}, "mqtt.tls"),
        ({"admin": {"enabled": True}}, "admin.enabled"),
        ({"groups": ["attic"]}, "groups"),
        ({"runtime": {"library": "/lib.so"}}, "runtime.library"),
        ({"policy": {"normal_share": 0.3}}, "policy.normal_share"),
        ({"limits": {"redelivery_window_s": 5}}, "limits.redelivery_window_s"),
    ],
)
def test_what_needs_a_restart_is_named_and_not_taken_over(settings, key):
    merged, taken, left = take_over(configured(), configured(**settings))
    assert (taken, left) == ((), (key,))
    assert merged == configured()


def test_both_kinds_in_one_file_are_told_apart():
    new = configured(mqtt={"port": 1999}, limits={"queue_length": 5, "redelivery_window_s": 5})
    merged, taken, left = take_over(configured(), new)
    assert taken == ("limits.queue_length",)
    assert left == ("limits.redelivery_window_s", "mqtt.port")
    assert merged == configured(limits={"queue_length": 5})


def test_a_client_and_its_model_come_together():
    new = configured(models=[{"id": "new", "file": "/q.rkllm"}], clients=[{"name": "a", "model": "new"}])
    merged, taken, left = take_over(configured(), new)
    assert (taken, left) == (("clients", "models"), ())
    assert merged == new


def test_a_changed_secret_is_seen_and_not_shown():
    old, new = (configured(mqtt={"password": word}) for word in ("hunter2", "hunter3"))
    assert changed_keys(old, old) == ()
    assert changed_keys(old, new) == ("mqtt.password",)
