"""Texts of the rknpu driver."""

from pathlib import Path

import pytest

from rkllm_mqtt.host.rknpu import find_folder, parse_load, parse_version, read_driver_version


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ("NPU load:  Core0: 45%, Core1:  0%, Core2:  0%,\n", (45, 0, 0)),
        ("NPU load:  Core0:100%, Core1:  %, Core2: 3%,", (100, 0, 3)),
        ("NPU load:  3%\n", (3,)),
        ("NPU load:   %\n", (0,)),
        ("NPU load:  Core0: 450%,", (100,)),
        ("", None),
        ("rknpu is suspended", None),
    ],
)
def test_a_load_has_one_percentage_per_core(text: str, loads: tuple[int, ...] | None) -> None:
    assert parse_load(text) == loads


def test_versions_compare_as_numbers() -> None:
    old, new = parse_version("RKNPU driver: v0.9.8"), parse_version("0.9.10")
    assert (old, new) == ((0, 9, 8), (0, 9, 10))
    assert parse_version("unknown") is None


def test_debugfs_is_preferred_and_procfs_taken_else(tmp_path: Path) -> None:
    (tmp_path / "proc/rknpu").mkdir(parents=True)
    (tmp_path / "proc/rknpu/version").write_text("RKNPU driver: v0.9.7\n")
    assert find_folder(tmp_path) == str(tmp_path / "proc/rknpu")
    (tmp_path / "sys/kernel/debug/rknpu").mkdir(parents=True)
    (tmp_path / "sys/kernel/debug/rknpu/load").write_text("NPU load:  1%\n")
    assert find_folder(tmp_path) == str(tmp_path / "sys/kernel/debug/rknpu")


def test_the_module_tells_its_version_when_debugfs_is_closed(tmp_path: Path) -> None:
    (tmp_path / "sys/module/rknpu").mkdir(parents=True)
    (tmp_path / "sys/module/rknpu/version").write_text("0.9.8\n")
    assert read_driver_version(tmp_path, None) == "0.9.8"
