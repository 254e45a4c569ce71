"""The promise of `caching/tiers.py`: a folder in memory and one on the disk, where the machine has them."""

from pathlib import Path

import pytest
from live_slot import slot_config

from rkllm_mqtt.caching import tiers
from rkllm_mqtt.caching.tiers import open_tiers


def opened(tmp_path, **runtime):
    return open_tiers(slot_config(journal={"path": tmp_path / "journal.db"}, **runtime))


def test_both_are_opened_with_their_budgets(tmp_path):
    found = opened(tmp_path, ram_cache_mb=7, ram_cache_folder=tmp_path / "memory", disk_write_mb_per_day=10)
    assert {name: shelf.budget_bytes for name, shelf in found.items()} == {
        "memory": 7_000_000,
        "disk": 70_000_000,
    }
    assert {name: shelf.folder for name, shelf in found.items()} == {
        "memory": tmp_path / "memory",
        "disk": tmp_path / "caches",
    }
    assert list(tmp_path.iterdir()) == []  # nothing is made before it is needed


def test_nothing_is_opened_where_nothing_is_wanted(tmp_path):
    assert opened(tmp_path, ram_cache_mb=0, disk_write_mb_per_day=0) == {}
    assert list(tmp_path.iterdir()) == []


def test_without_a_number_a_share_of_the_available_memory_is_used(tmp_path):
    found = opened(tmp_path, ram_cache_folder=tmp_path / "memory", disk_write_mb_per_day=0)
    assert found["memory"].budget_bytes > 1_000_000


def test_a_folder_that_cannot_be_had_leaves_the_other(tmp_path):
    (tmp_path / "memory").write_text("")
    found = opened(tmp_path, ram_cache_folder=tmp_path / "memory", ram_cache_mb=7)
    assert set(found) == {"disk"}


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"/dev/shm": "tmpfs"}, "/dev/shm/rkllm-mqtt-"),
        ({"/run/own": "tmpfs"}, "/run/own/caches"),
        ({}, None),
    ],
)
def test_the_folder_is_in_shared_memory_else_the_services_own_else_there_is_none(
    monkeypatch, kinds, expected
):
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/own")
    monkeypatch.setattr(tiers, "file_system_of", lambda path: kinds.get(str(path), "ext4"))
    monkeypatch.setattr(tiers.os, "access", lambda _path, _mode: True)
    folder = tiers._memory_folder(slot_config())
    assert folder is None if expected is None else expected in str(folder)
    assert folder is None or isinstance(folder, Path)
