"""The promise of `core/homeassistant.py`: one device whose entities read and write only what they may."""

import json
import tomllib
from pathlib import Path

import pytest

from rkllm_mqtt.core.homeassistant import PROJECT_URL, build_discovery, device_facts, discovery_topic
from rkllm_mqtt.core.topics import Topics

WIRE = Path(__file__).parents[1] / "wire"
READ = ("state_topic", "json_attributes_topic")


def golden(name):
    return json.loads((WIRE / f"{name}.json").read_bytes())


def build(*, admin=True, **changes):
    info = golden("info")
    info |= changes
    if not admin:
        info["features"].remove("admin")
    return build_discovery(device_facts(info, "homeassistant"))


def test_the_message_is_the_golden_one():
    assert build() == golden("homeassistant/discovery")


def test_there_is_one_topic_for_one_node():
    assert discovery_topic("homeassistant", "rock5") == "homeassistant/device/rkllm_rock5/config"


@pytest.mark.parametrize("admin", [True, False])
def test_every_entity_is_named_once_and_reads_what_the_daemon_publishes(admin):
    message = build(admin=admin)
    components = message["components"].values()
    assert len({c["unique_id"] for c in components}) == len(components)
    assert len({c["name"] for c in components}) == len(components)
    topics = Topics("rkllm", "rock5")
    for component in components:
        for key in READ:
            assert key not in component or topics.may_publish(component[key]), component
    assert topics.may_publish(message["availability"][0]["topic"])


def test_every_command_is_one_that_the_daemon_takes():
    topics = Topics("rkllm", "rock5")
    commands = [c["command_topic"] for c in build()["components"].values() if "command_topic" in c]
    assert len(commands) == 5
    assert all(topics.parse(topic) is not None for topic in commands)


def test_without_admin_commands_nothing_is_written_but_the_mailbox_of_home_assistant():
    written = [c for c in build(admin=False)["components"].values() if "command_topic" in c]
    assert [c["command_topic"] for c in written] == ["rkllm/rock5/client/homeassistant/request"]


def test_a_press_is_not_kept_for_a_daemon_that_is_away():
    buttons = [c for c in build()["components"].values() if "/admin/" in c.get("command_topic", "")]
    assert len(buttons) == 4
    assert all(button["qos"] == 0 for button in buttons)


def test_what_only_an_expert_wants_is_there_but_disabled():
    off = {key for key, c in build()["components"].items() if c.get("enabled_by_default") is False}
    assert off == {"npu_frequency", "disk_free", "prefix", "worker_restarts"}


def test_a_simulated_node_says_so():
    runtime = {"version": "1.3.1", "abi": "F", "driver": None, "platform": None, "simulated": True}
    device = build(runtime=runtime)["device"]
    assert device["model"] == "Simulated NPU"
    assert "hw_version" not in device


def test_the_link_of_the_device_is_the_repository():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == PROJECT_URL
