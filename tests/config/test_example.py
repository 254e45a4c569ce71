"""The example and the schema are written from the settings, and are what the repository shows."""

import json
from pathlib import Path

from rkllm_mqtt.config import Config, parse_config
from rkllm_mqtt.config.example import build_example, build_schema

FOLDER = Path(__file__).parents[2] / "config"


def test_the_example_loads_and_gives_the_defaults():
    example = parse_config(build_example(), "example", {})
    assert example.model_copy(update={"node": "x"}) == Config(node="x")


def test_the_example_loads_with_its_lists_switched_on():
    lines = []
    for line in build_example().splitlines():
        on = line.startswith(("# models:", "# clients:", "# schedules:", "#   - ", "#     "))
        lines.append(line[2:] if on else line)
    config = parse_config("\n".join(lines), "example", {})
    assert config.models[0].id == "qwen"
    assert config.clients[0].name == "esp-*"
    assert config.schedules[0].values == {"weather": "home/weather"}


def test_every_setting_is_in_the_example_with_its_description():
    text = build_example()
    for name, field in Config.model_fields.items():
        assert f"{name}:" in text
        assert field.description


def test_the_files_in_the_repository_are_current():
    hint = "run `rkllm-mqtt config example` and `schema` into config/"
    assert (FOLDER / "rkllm-mqtt.yaml").read_text() == build_example(), hint
    assert (FOLDER / "rkllm-mqtt.schema.json").read_text() == build_schema(), hint


def test_no_secret_can_be_written_into_the_file():
    assert "password" not in json.loads(build_schema())["$defs"]["MqttConfig"]["properties"]
