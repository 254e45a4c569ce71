"""The configuration: frozen settings, and the one place that reads them from files and environment."""

from rkllm_mqtt.config.loading import DEFAULT_PATHS, find_config, load_config, load_model, parse_config
from rkllm_mqtt.config.models import LoraConfig, ModelConfig, PresetConfig
from rkllm_mqtt.config.runtime import RuntimeConfig
from rkllm_mqtt.config.schedules import ScheduleConfig
from rkllm_mqtt.config.settings import (
    AdminConfig,
    ClientConfig,
    Config,
    JournalConfig,
    LimitsConfig,
    LogConfig,
    MqttConfig,
    TlsConfig,
)
from rkllm_mqtt.core.errors import ConfigError

__all__ = [
    "DEFAULT_PATHS",
    "AdminConfig",
    "ClientConfig",
    "Config",
    "ConfigError",
    "JournalConfig",
    "LimitsConfig",
    "LogConfig",
    "LoraConfig",
    "ModelConfig",
    "MqttConfig",
    "PresetConfig",
    "RuntimeConfig",
    "ScheduleConfig",
    "TlsConfig",
    "find_config",
    "load_config",
    "load_model",
    "parse_config",
]
