"""The folders of prompt-cache files: one in memory, one on the disk, as far as the machine has them."""

import os
from hashlib import blake2b
from pathlib import Path

from rkllm_mqtt.caching.shelf import MB, Shelf
from rkllm_mqtt.config import Config
from rkllm_mqtt.host.disk import file_system_of
from rkllm_mqtt.host.memory import read_memory
from rkllm_mqtt.logs import get_logger

log = get_logger(__name__)

DISK_FOLDER = "caches"
"""Beside the journal."""
_SHARE = 0.15
"""Of the memory that is available at the start."""


def open_tiers(config: Config) -> dict[str, Shelf]:
    """Return the tiers that can be used, by name; a folder that cannot be had is said and left out."""
    tiers = {}
    for shelf in (_memory(config), _disk(config)):
        if shelf is None:
            continue
        try:
            shelf.open()
        except OSError as exc:
            log.warning("prompt_caches_off", tier=shelf.tier, folder=str(shelf.folder), reason=str(exc))
            continue
        tiers[shelf.tier] = shelf
    return tiers


def _memory(config: Config) -> Shelf | None:
    megabytes = config.runtime.ram_cache_mb
    if megabytes is None:
        available = read_memory().available_mb
        megabytes = 0 if available is None else int(available * _SHARE)
    folder = _memory_folder(config)
    return Shelf("memory", folder, megabytes * MB) if megabytes and folder else None


def _memory_folder(config: Config) -> Path | None:
    """Return a folder in memory: as configured, shared memory, or the one that the service manager made."""
    if config.runtime.ram_cache_folder is not None:
        return config.runtime.ram_cache_folder
    shared = Path("/dev/shm")
    made = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    for place, folder in (
        (shared, shared / f"rkllm-mqtt-{os.geteuid()}-{_journal_of(config)}"),
        (Path(made or "/"), Path(made) / "caches"),
    ):
        if file_system_of(place) == "tmpfs" and os.access(place, os.W_OK):
            return folder
    return None


def _journal_of(config: Config) -> str:
    """Return what tells this daemon from another one: no two have the same journal."""
    return blake2b(bytes(config.journal.path.absolute()), digest_size=4).hexdigest()


def _disk(config: Config) -> Shelf | None:
    """Return the tier of registered prefixes; its size is bounded by what may be written in a week."""
    a_day = config.runtime.disk_write_mb_per_day
    return Shelf("disk", config.journal.path.parent / DISK_FOLDER, 7 * a_day * MB) if a_day else None
