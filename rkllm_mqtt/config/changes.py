"""Compare two configurations: what a running daemon can take over, and what needs a restart.

A key that is not listed needs a restart: a new one is told truthfully before anybody has thought of it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from rkllm_mqtt.config.settings import Config

RELOADABLE = frozenset(
    {
        "clients",
        "delta_interval_ms",
        "drain_timeout_s",
        "limits.client_waiting",
        "limits.id_retention_s",
        "limits.journal_mb",
        "limits.last_clients",
        "limits.last_ttl_s",
        "limits.logits_max_mb",
        "limits.max_tokens",
        "limits.queue_length",
        "limits.rejects_per_s",
        "limits.reply_bytes",
        "limits.request_bytes",
        "limits.requests_burst",
        "limits.requests_burst_alone",
        "limits.requests_per_s",
        "limits.ttl_s",
        "log.level",
        "models",
        "models_folder",
        "policy.hold_max_s",
        "policy.hold_share",
        "policy.idle_warm",
        "policy.prefill_chunk_tokens",
        "policy.tool_linger_s",
        "presets",
        "runtime.abort_grace_s",
        "runtime.idle_unload_s",
        "runtime.batch_window_ms",
        "runtime.load_timeout_s",
        "runtime.max_attempts",
        "runtime.max_worker_growth_mb",
        "runtime.restart_max_s",
        "runtime.run_timeout_s",
        "runtime.stall_timeout_s",
    }
)
"""Keys that a running daemon takes over at SIGHUP."""


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Return the keys in which two configurations differ, as `key` or `section.key`, sorted."""
    before, after = _flat(old), _flat(new)
    return tuple(sorted(key for key in before if before[key] != after[key]))


def take_over(old: Config, new: Config) -> tuple[Config, tuple[str, ...], tuple[str, ...]]:
    """Return `old` with what can change at run time as in `new`; the keys taken over; and the others."""
    changed = changed_keys(old, new)
    taken = [key for key in changed if key in RELOADABLE]
    return _merged(old, new, taken), tuple(taken), tuple(key for key in changed if key not in taken)


def _merged(old: Config, new: Config, keys: Collection[str]) -> Config:
    update: dict[str, Any] = {}
    for key in keys:
        section, _, name = key.partition(".")
        if not name:
            update[section] = getattr(new, section)
            continue
        part: BaseModel = update.get(section, getattr(old, section))
        update[section] = part.model_copy(update={name: getattr(getattr(new, section), name)})
    return old.model_copy(update=update)


def _flat(config: Config) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for key in Config.model_fields:
        value = getattr(config, key)
        if isinstance(value, BaseModel):
            values |= {f"{key}.{name}": getattr(value, name) for name in type(value).model_fields}
        else:
            values[key] = value
    return values
