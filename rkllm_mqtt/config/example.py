"""Write the commented example and the JSON schema of the configuration from the settings themselves."""

import json
import textwrap
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rkllm_mqtt.config.models import ModelConfig
from rkllm_mqtt.config.schedules import ScheduleConfig
from rkllm_mqtt.config.settings import ClientConfig, Config, MqttConfig, TlsConfig

_WIDTH = 96
_LISTS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "models": (ModelConfig, {"id": "qwen", "file": "/var/lib/rkllm-mqtt/models/qwen2.5-1.5b.rkllm"}),
    "clients": (ClientConfig, {"name": "esp-*"}),
    "schedules": (
        ScheduleConfig,
        {
            "id": "morning",
            "cron": "0 7 * * mon-fri",
            "prompt": "Good morning. The weather: {{ weather }}. Sum up the day in two sentences.",
            "values": {"weather": "home/weather"},
        },
    ),
}
_SECRETS = frozenset({"password", "key_password"})
_HEAD = """\
# rkllm-mqtt: every setting with its default. What is behind a `#` is not set.
# `rkllm-mqtt config check` reads this file and names the line of a mistake.
"""


def build_schema() -> str:
    """Return the JSON schema of the configuration file."""
    schema = Config.model_json_schema()
    for name in _SECRETS:
        del schema["$defs"][MqttConfig.__name__]["properties"][name]
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def build_example() -> str:
    """Return a complete commented configuration file; it loads, and gives the defaults."""
    return _HEAD + "".join(_section(Config, 0))


def _section(model: type[BaseModel], depth: int) -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        if name in _SECRETS:
            continue
        if depth == 0:
            lines.append("\n")
        lines += _comment(field.description or "", depth)
        lines += _setting(name, field, depth)
    return lines


def _setting(name: str, field: FieldInfo, depth: int) -> list[str]:
    pad = "  " * depth
    inner = _model_of(field)
    if name in _LISTS:
        return _list_example(name)
    if inner is TlsConfig:
        return [f"{pad}# {name}:\n", *(_off(line, pad) for line in _section(TlsConfig, depth + 1))]
    if inner is not None and name != "presets":
        return [f"{pad}{name}:\n", *_section(inner, depth + 1)]
    value = field.get_default(call_default_factory=True, validated_data={})
    if name == "node":
        return [f"{pad}# {name}: kitchen\n"]
    if value is None:
        return [f"{pad}# {name}:\n"]
    if isinstance(value, dict):
        plain = {key: item.model_dump(exclude_none=True) for key, item in value.items()}
        body = textwrap.indent(yaml.safe_dump(plain, sort_keys=False), pad + "  ")
        return [f"{pad}{name}:\n", body]
    return [f"{pad}{name}: {_scalar(value)}\n"]


def _list_example(name: str) -> list[str]:
    model, given = _LISTS[name]
    lines = [f"# {name}:\n"]
    for number, (key, field) in enumerate(model.model_fields.items()):
        lines += [_off(line, "") for line in _comment(field.description or "", 2)]
        value = given.get(key, field.get_default(call_default_factory=True, validated_data={}))
        shown = "" if value is None else _scalar({} if isinstance(value, BaseModel) else value)
        lines.append(f"#   {'- ' if number == 0 else '  '}{key}: {shown}".rstrip() + "\n")
    return lines


def _comment(text: str, depth: int) -> list[str]:
    pad = "  " * depth
    return [f"{pad}# {line}\n" for line in textwrap.wrap(text, _WIDTH - len(pad))]


def _off(line: str, pad: str) -> str:
    """Return a line switched off by `#`, its indentation after `pad` kept."""
    return f"{pad}# {line.removeprefix(pad)}"


def _scalar(value: object) -> str:
    plain = (
        list(value)
        if isinstance(value, tuple)
        else value
        if isinstance(value, int | float | dict)
        else str(value)
    )
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
