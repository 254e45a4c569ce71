"""Read the configuration: YAML, environment and secret files in, `Config` or a ConfigError out.

The only place of the daemon that reads settings; errors name file, line and key.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr, ValidationError

from rkllm_mqtt.config.models import ModelConfig
from rkllm_mqtt.config.settings import Config
from rkllm_mqtt.core.errors import ConfigError

DEFAULT_PATHS = (Path("rkllm-mqtt.yaml"), Path("/etc/rkllm-mqtt/rkllm-mqtt.yaml"))
"""Where a configuration is looked for when none is named; RKLLM_MQTT_CONFIG comes first."""

_MAX_BYTES = 1_048_576
_MAX_DEPTH = 16
_SECRET_KEYS = frozenset({"password", "key_password"})


def find_config(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the configuration file to use when none is named, or None."""
    named = environ.get("RKLLM_MQTT_CONFIG")
    if named:
        return Path(named)
    return next((path for path in DEFAULT_PATHS if path.is_file()), None)


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration of a file; the defaults when there is none.

    Raises:
        ConfigError: The file cannot be read or used; names line and key.
    """
    path = path or find_config(environ)
    if path is None:
        return parse_config("", "defaults", environ)
    text = _read(path, "Name the file with --config.")
    return parse_config(text, str(path), environ)


def parse_config(text: str, source: str, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration of a YAML text.

    Args:
        text: YAML; empty means all defaults.
        source: Name of the text in errors.
        environ: Where RKLLM_MQTT_USERNAME and RKLLM_MQTT_PASSWORD are looked up.

    Raises:
        ConfigError: Names source, line and key of the first mistake, and counts the others.
    """
    node = _compose(text, source)
    values = _plain(node, source) if node is not None else {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}:1: the configuration must be a mapping of keys to values")
    _refuse_plain_secrets(values, node, source)
    _add_secrets(values, source, environ)
    try:
        return Config.model_validate(values)
    except ValidationError as exc:
        raise _explain(exc, node, source) from None


def load_model(file: Path) -> ModelConfig:
    """Return the settings of a file in the models folder: those of `<stem>.yaml` beside it, or defaults.

    Raises:
        ConfigError: The name cannot be an id, or the YAML file cannot be used; names its line and key.
    """
    path = file.with_suffix(".yaml")
    source = str(path if path.is_file() else file)
    text = _read(path, "The daemon's user must be able to read it.") if path.is_file() else ""
    node = _compose(text, source)
    values = _plain(node, source) if node is not None else {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}:1: the settings of a model must be a mapping of keys to values")
    for key in ("id", "file"):
        if key in values:
            raise ConfigError(
                f"{source}:{_line(node, (key,))}: {key}: the file beside it says that", "Remove the key."
            )
    try:
        return _beside(ModelConfig.model_validate({**values, "id": file.stem, "file": file}), file.parent)
    except ValidationError as exc:
        raise _explain(exc, node, source) from None


def _beside(model: ModelConfig, folder: Path) -> ModelConfig:
    """Return settings in which the files that are named relatively lie in the model's folder."""
    template = folder / model.template
    return model.model_copy(
        update={
            "tokenizer": None if model.tokenizer is None else folder / model.tokenizer,
            "template": str(template) if template.is_file() else model.template,
            "loras": tuple(lora.model_copy(update={"file": folder / lora.file}) for lora in model.loras),
        }
    )


def _read(path: Path, hint: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}", hint) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 text", "Save the file as UTF-8.") from exc
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {_MAX_BYTES} bytes")
    return text


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        _refuse_tricks(text, source)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not valid YAML: {exc.problem}") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise ConfigError(f"{source}: not valid YAML: {type(exc).__name__}") from exc


def _refuse_tricks(text: str, source: str) -> None:
    """Refuse what blows a few lines up: aliases to gigabytes, deep nesting to minutes."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{source}:{line}: YAML aliases (*name) are not supported", "Write the value out."
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{source}:{line}: nested deeper than {_MAX_DEPTH} levels")


def _plain(node: yaml.Node, source: str) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{source}:{line}: a key must be a word")
            if key in result:
                raise ConfigError(f"{source}:{line}: the key {key!r} is given twice")
            result[key] = _plain(value_node, source)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, source) for item in node.value]
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(f"{source}:{node.start_mark.line + 1}: not a plain value") from exc


def _refuse_plain_secrets(values: dict[str, Any], node: yaml.Node | None, source: str) -> None:
    mqtt = values.get("mqtt")
    if isinstance(mqtt, dict):
        for key in _SECRET_KEYS & mqtt.keys():
            raise ConfigError(
                f"{source}:{_line(node, ('mqtt', key))}: mqtt.{key}: secrets do not belong into this file",
                "Put it into a file of its own and name that with password_file, or set RKLLM_MQTT_PASSWORD.",
            )


def _add_secrets(values: dict[str, Any], source: str, environ: Mapping[str, str]) -> None:
    mqtt = values.setdefault("mqtt", {})
    if mqtt is None:
        mqtt = values["mqtt"] = {}
    if not isinstance(mqtt, dict):
        return  # the validation that follows says what is wrong with it
    if environ.get("RKLLM_MQTT_USERNAME"):
        mqtt["username"] = environ["RKLLM_MQTT_USERNAME"]
    if environ.get("RKLLM_MQTT_PASSWORD"):
        mqtt["password"] = SecretStr(environ["RKLLM_MQTT_PASSWORD"])
    elif isinstance(mqtt.get("password_file"), str):
        mqtt["password"] = _secret(mqtt["password_file"], source, "mqtt.password_file")
    tls = mqtt.get("tls")
    if isinstance(tls, dict) and isinstance(tls.get("key_password_file"), str):
        mqtt["key_password"] = _secret(tls["key_password_file"], source, "mqtt.tls.key_password_file")


def _secret(path: str, source: str, key: str) -> SecretStr:
    try:
        return SecretStr(Path(path).read_text("utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "is not UTF-8 text"
        raise ConfigError(
            f"{source}: {key}: {path}: {reason}", "The daemon's user must be able to read it."
        ) from exc


def _explain(error: ValidationError, node: yaml.Node | None, source: str) -> ConfigError:
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    loc = tuple(part for part in first["loc"] if isinstance(part, str | int))
    key = ".".join(str(part) for part in loc) or "configuration"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "there is no such key"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    hint = "`rkllm-mqtt config example` shows every key."
    return ConfigError(f"{source}:{_line(node, loc)}: {key}: {reason}{more}", hint)


def _line(node: yaml.Node | None, loc: Sequence[str | int]) -> int:
    """Return the line, from 1, of the deepest part of `loc` that the text has."""
    line = 1
    for part in loc:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                if key_node.value == str(part):
                    line, found = key_node.start_mark.line + 1, value_node
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line
