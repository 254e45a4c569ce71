"""Free space."""

import shutil
from pathlib import Path

from rkllm_mqtt.host.disk import MB, file_system_of, free_mb


def test_free_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    free = free_mb(tmp_path)
    assert free is not None
    assert abs(free - shutil.disk_usage(tmp_path).free // MB) < 512


def test_a_path_that_does_not_exist_yet_is_measured_at_its_parent(tmp_path: Path) -> None:
    assert free_mb(tmp_path / "not" / "yet" / "journal.db") is not None


def test_a_path_below_a_file_has_no_free_space(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert free_mb(tmp_path / "file" / "journal.db") is None


def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\nbroken\n")
    assert file_system_of(tmp_path / "x", mounts) == "tmpfs"
    assert file_system_of(tmp_path.parent, mounts) == "ext4"
    assert file_system_of(tmp_path, tmp_path / "missing") is None
