"""Reading the configuration: files, environment, secrets, and YAML that means harm."""

import pytest

from rkllm_mqtt.config import ConfigError, find_config, load_config, parse_config


def test_the_named_file_wins_over_the_environment_and_the_environment_over_the_usual_places(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert find_config({}) is None or find_config({}).is_absolute()
    (tmp_path / "rkllm-mqtt.yaml").write_text("node: here")
    assert load_config(None, {}).node == "here"
    named = tmp_path / "named.yaml"
    named.write_text("node: named")
    assert load_config(None, {"RKLLM_MQTT_CONFIG": str(named)}).node == "named"
    assert load_config(named, {"RKLLM_MQTT_CONFIG": "/nowhere"}).node == "named"


def test_a_missing_unreadable_or_binary_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml", {})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"node: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(binary, {})
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_config(tmp_path, {})


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",  # an alias: the billion laughs begin like this
        "node: !!python/object/apply:os.system [true]",
        "node: [",
        "- a\n- b",
        "node: a\nnode: b",
        "? [a]\n: b",
        "{" * 3000,
        "mqtt: 5",
        "node: 2024-13-45",
    ],
)
def test_hostile_yaml_is_an_error_with_a_place_never_a_traceback(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "test", {})
    assert str(caught.value).startswith("test:")


def test_the_password_comes_from_a_file_or_the_environment_and_never_shows(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    config = parse_config(f"mqtt: {{username: me, password_file: {secret}}}", "test", {})
    assert config.mqtt.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(config)
    environment = {"RKLLM_MQTT_USERNAME": "you", "RKLLM_MQTT_PASSWORD": "other"}
    config = parse_config(f"mqtt: {{username: me, password_file: {secret}}}", "test", environment)
    assert config.mqtt.username == "you"
    assert config.mqtt.password.get_secret_value() == "other"


def test_a_password_in_the_yaml_itself_is_refused_without_repeating_it():
    with pytest.raises(ConfigError) as caught:
        parse_config("mqtt:\n  password: hunter2", "test", {})
    assert "test:2: mqtt.password" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_a_password_file_that_cannot_be_read_names_the_key(tmp_path):
    with pytest.raises(ConfigError, match=r"mqtt\.password_file"):
        parse_config(f"mqtt: {{password_file: {tmp_path / 'none'}}}", "test", {})
