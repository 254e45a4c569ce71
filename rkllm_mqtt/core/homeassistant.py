"""Build the message with which the daemon shows itself to Home Assistant as one device.

Rule 1: an entity reads a topic that the protocol has anyway; nothing is published for Home Assistant alone.
Rule 2: an entity that would write an admin topic exists only while the daemon takes admin commands.

Source: Home Assistant 2026.10, MQTT device discovery, with the long names of its keys.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

PROJECT_URL = "https://github.com/rkllm-mqtt/rkllm-mqtt"
_STALE_S = 95
"""Health and stats come every 30 s: what rests on them and is older comes from a dead daemon."""
_EVENT_CHARS = 4_000
"""Home Assistant does not record attributes above 16,384 bytes; a character has up to four."""

Members = dict[str, Any]


class DeviceFacts(Struct, frozen=True):
    """What the discovery message tells of this node."""

    base: str
    node: str
    client: str
    """Home Assistant's client name: the mailbox that the notify entity writes and the event entity reads."""
    version: str
    platform: str | None
    driver: str | None
    simulated: bool
    models: tuple[str, ...]
    admin: bool
    """Whether admin commands are taken."""


def device_facts(info: Mapping[str, Any], client: str) -> DeviceFacts:
    """Return what the members of `info` say; `client` is Home Assistant's client name."""
    runtime = info["runtime"]
    return DeviceFacts(
        base=info["base"],
        node=info["node"],
        client=client,
        version=info["version"],
        platform=runtime["platform"],
        driver=runtime["driver"],
        simulated=bool(runtime["simulated"]),
        models=tuple(model["id"] for model in info["models"] if not model["fault"]),
        admin="admin" in info["features"],
    )


def discovery_topic(prefix: str, node: str) -> str:
    """Return the one topic of the device."""
    return f"{prefix}/device/rkllm_{node}/config"


def build_discovery(facts: DeviceFacts) -> Members:
    """Return the members of the retained discovery message."""
    components = {**_sensors(), **_conversation(facts)}
    if facts.admin:
        components |= _controls(facts)
    topic = f"{facts.base}/{facts.node}"
    for key, component in components.items():
        component["unique_id"] = f"rkllm_{facts.node}_{key}"
        for name in ("state_topic", "json_attributes_topic", "command_topic"):
            if name in component:
                component[name] = f"{topic}/{component[name]}"
    return {
        "device": _device(facts),
        "origin": {"name": "rkllm-mqtt", "sw_version": facts.version, "support_url": PROJECT_URL},
        "availability": [{"topic": f"{topic}/status"}],
        "qos": 1,
        "components": components,
    }


def _device(facts: DeviceFacts) -> Members:
    device = {
        "identifiers": [f"rkllm_{facts.node}"],
        "name": f"RKLLM {facts.node}",
        "manufacturer": "rkllm-mqtt",
        "model": "Simulated NPU" if facts.simulated else f"{facts.platform or 'Rockchip'} NPU",
        "sw_version": facts.version,
    }
    if facts.driver:
        device["hw_version"] = f"rknpu {facts.driver}"
    return device


def _sensors() -> dict[str, Members]:
    return {**_queue_sensors(), **_stats_sensors(), **_health_sensors()}


def _queue_sensors() -> dict[str, Members]:
    return {
        "status": {
            "platform": "sensor",
            "name": "Status",
            "state_topic": "queue",
            "value_template": "{{ value_json.state }}",
            "device_class": "enum",
            "options": ["idle", "busy", "paused", "draining"],
            "icon": "mdi:state-machine",
        },
        "generating": {
            "platform": "binary_sensor",
            "name": "Generating",
            "state_topic": "queue",
            "value_template": "{{ 'ON' if value_json.running else 'OFF' }}",
            "device_class": "running",
        },
        "queue_length": {
            "platform": "sensor",
            "name": "Queue length",
            "state_topic": "queue",
            "value_template": "{{ value_json.length }}",
            "state_class": "measurement",
            "unit_of_measurement": "requests",
            "suggested_display_precision": 0,
            "icon": "mdi:tray-full",
        },
        "running_client": {
            "platform": "sensor",
            "name": "Running client",
            "state_topic": "queue",
            "value_template": "{{ value_json.running[0].client if value_json.running else 'none' }}",
            "icon": "mdi:account-voice",
        },
    }


def _stats_sensors() -> dict[str, Members]:
    common = {"platform": "sensor", "state_topic": "stats", "expire_after": _STALE_S}
    share = "{{ 100 * value_json.tokens_cached_total / value_json.tokens_prompt_total"
    return {
        "tokens_per_s": {
            **common,
            "name": "Generation speed",
            "value_template": "{{ value_json.tokens_per_s_last }}",
            "state_class": "measurement",
            "unit_of_measurement": "tokens/s",
            "suggested_display_precision": 1,
            "icon": "mdi:speedometer",
        },
        "time_to_first_token": {
            **common,
            "name": "Time to first token",
            "value_template": "{{ value_json.ttft_ms_last }}",
            "device_class": "duration",
            "state_class": "measurement",
            "unit_of_measurement": "ms",
            "suggested_display_precision": 0,
        },
        "cache_hit_share": {
            **common,
            "name": "Prompt tokens from the cache",
            "value_template": share + " if value_json.tokens_prompt_total else None }}",
            "state_class": "measurement",
            "unit_of_measurement": "%",
            "suggested_display_precision": 0,
            "entity_category": "diagnostic",
            "icon": "mdi:cached",
        },
    }


def _health_sensors() -> dict[str, Members]:
    sensor = {
        "platform": "sensor",
        "state_topic": "health",
        "expire_after": _STALE_S,
        "entity_category": "diagnostic",
    }
    load = "value_json.npu.load_percent"
    return {
        "problem": {
            **sensor,
            "platform": "binary_sensor",
            "name": "Problem",
            "value_template": "{{ 'OFF' if value_json.status == 'healthy' else 'ON' }}",
            "device_class": "problem",
            "json_attributes_topic": "health",
            "json_attributes_template": "{{ {'reasons': value_json.reasons} | to_json }}",
        },
        "npu_load": {
            **sensor,
            "name": "NPU load",
            "value_template": f"{{{{ {load} | average if {load} is defined and {load} else None }}}}",
            "state_class": "measurement",
            "unit_of_measurement": "%",
            "suggested_display_precision": 0,
            "icon": "mdi:chip",
        },
        "npu_frequency": {
            **sensor,
            "name": "NPU frequency",
            "value_template": "{{ value_json.npu.frequency_mhz | default(None) }}",
            "device_class": "frequency",
            "state_class": "measurement",
            "unit_of_measurement": "MHz",
            "suggested_display_precision": 0,
            "enabled_by_default": False,
        },
        "npu_temperature": {
            **sensor,
            "name": "NPU temperature",
            "value_template": "{{ value_json.npu.celsius | default(None) }}",
            "device_class": "temperature",
            "state_class": "measurement",
            "unit_of_measurement": "°C",
            "suggested_display_precision": 1,
        },
        "disk_free": {
            **sensor,
            "name": "Free disk",
            "value_template": "{{ value_json.disk_free_mb }}",
            "device_class": "data_size",
            "state_class": "measurement",
            "unit_of_measurement": "MiB",
            "suggested_display_precision": 0,
            "enabled_by_default": False,
        },
        "prefix": {
            **sensor,
            "name": "Prompt prefix",
            "value_template": "{{ value_json.prefix.state if value_json.prefix else 'none' }}",
            "device_class": "enum",
            "options": ["warm", "cold", "none"],
            "enabled_by_default": False,
            "icon": "mdi:fire",
        },
        "worker_restarts": {
            **sensor,
            "name": "Restarts",
            "value_template": "{{ value_json.worker.restarts }}",
            "state_class": "total_increasing",
            "suggested_display_precision": 0,
            "enabled_by_default": False,
            "icon": "mdi:restart-alert",
        },
    }


def _conversation(facts: DeviceFacts) -> dict[str, Members]:
    # Only id-less requests answer on `reply` itself: what other parts of Home Assistant ask with ids,
    # conversations among it, neither fires this event nor gets into the history of its attributes.
    outcome = (
        "{% if value_json is mapping %}"
        "{{ {'event_type': 'answer' if value_json.status == 'ok' else"
        " ('cancelled' if value_json.finish_reason == 'cancelled' else 'error'),"
        f" 'text': value_json.text[:{_EVENT_CHARS}], 'truncated': value_json.truncated or"
        f" value_json.text | length > {_EVENT_CHARS}, 'id': value_json.id, 'model': value_json.model,"
        " 'error': value_json.error.code if value_json.error is defined else None} | to_json }}"
        "{% else %}"
        "{{ {'event_type': 'error' if value.startswith('ERROR ') else 'answer',"
        f" 'text': value[:{_EVENT_CHARS}], 'truncated': value | length > {_EVENT_CHARS}}} | to_json }}}}"
        "{% endif %}"
    )
    return {
        "prompt": {
            "platform": "notify",
            "name": "Prompt",
            "command_topic": f"client/{facts.client}/request",
            "command_template": "{{ {'prompt': value} | to_json }}",
            "icon": "mdi:message-question",
        },
        "answer": {
            "platform": "event",
            "name": "Answer",
            "state_topic": f"client/{facts.client}/reply",
            "event_types": ["answer", "error", "cancelled"],
            "value_template": outcome,
            "icon": "mdi:message-reply-text",
        },
    }


def _controls(facts: DeviceFacts) -> dict[str, Members]:
    # QoS 0: the broker keeps no press for a daemon that is away. A message expiry would do the same, but
    # Home Assistant refuses to publish with one over MQTT 3.1.1.
    def press(name: str, command: str, payload: str, icon: str) -> Members:
        return {
            "platform": "button",
            "name": name,
            "command_topic": f"admin/request/{command}",
            "payload_press": payload,
            "qos": 0,
            "entity_category": "config",
            "icon": icon,
        }

    return {
        "cancel": press("Cancel", "cancel", '{"running": true}', "mdi:cancel"),
        "pause": press("Pause", "pause", "{}", "mdi:pause"),
        "resume": press("Resume", "resume", "{}", "mdi:play"),
        "model": {
            "platform": "select",
            "name": "Model",
            "state_topic": "health",
            "value_template": "{{ value_json.model_loaded }}",
            "command_topic": "admin/request/model",
            "command_template": "{{ {'id': value} | to_json }}",
            "options": list(facts.models),
            "qos": 0,
            "entity_category": "config",
            "icon": "mdi:brain",
        },
    }
