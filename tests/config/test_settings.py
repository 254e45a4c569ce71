"""The settings: bounds, defaults, and names that must agree."""

import pytest

from rkllm_mqtt.config import ConfigError, parse_config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node: Kitchen", "test:1: node:"),
        ("base: a/b", "test:1: base:"),
        ("mqtt:\n  port: 70000", "test:2: mqtt.port:"),
        ("mqtt:\n  port: '1883'\n  hots: x", "mqtt.hots: there is no such key"),
        ("mqtt:\n  transport: unix", "needs socket_path"),
        ("mqtt:\n  host: mqtt://broker:1883", "test:2: mqtt.host: only a host name or address"),
        ("limits:\n  queue_length: 0", "test:2: limits.queue_length:"),
        ("limits:\n  ttl_s: .inf", "test:2: limits.ttl_s:"),
        ("reply_topics: ['a/+/{client}']", "wildcard"),
        ("reply_topics: ['a/b']", "exactly one level"),
        ("reply_topics: ['a/x{client}']", "exactly one level"),
        ("models:\n  - {id: a, file: /x}\n  - {id: a, file: /y}", "same id"),
        ("node: a\ngroups: [a]", "node's name"),
        ("clients:\n  - {name: x, preset: wild}", "unknown preset 'wild'"),
        ("clients:\n  - {name: x, model: wild}", "unknown model 'wild'"),
        ("runtime:\n  max_attempts: 0", "test:2: runtime.max_attempts:"),
    ],
)
def test_a_wrong_setting_is_refused_with_line_and_key(text, says):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "test", {})
    assert says in str(caught.value)


def test_an_empty_file_is_the_defaults():
    config = parse_config("", "test", {})
    assert config.base == "rkllm"
    assert config.mqtt.port is None
    assert sorted(config.presets) == ["balanced", "creative", "precise"]


def test_a_response_topic_pattern_with_a_client_level_is_taken():
    assert parse_config("reply_topics: ['home/{client}/llm']", "test", {}).reply_topics == (
        "home/{client}/llm",
    )
