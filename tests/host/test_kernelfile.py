"""Single values of the kernel's file systems."""

import os
from pathlib import Path

from rkllm_mqtt.host.kernelfile import VALUE_BYTES, names_in, read_bytes, read_int, read_text


def test_a_value_comes_without_line_end_and_nul(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Orange Pi 5\0")
    (tmp_path / "freq").write_text("1000000000\n")
    assert read_text(tmp_path / "model") == "Orange Pi 5"
    assert read_int(tmp_path / "freq") == 1_000_000_000


def test_absent_and_odd_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("max\n")
    os.mkfifo(tmp_path / "fifo")
    assert read_text(tmp_path / "absent") is None
    assert read_text(tmp_path) is None
    assert read_int(tmp_path / "word") is None
    assert read_text(tmp_path / "fifo") == ""


def test_a_huge_file_is_read_up_to_a_page(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"x" * 100_000)
    assert len(read_bytes(tmp_path / "huge") or b"") == VALUE_BYTES


def test_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("policy10", "policy2", "policy0"):
        (tmp_path / name).mkdir()
    assert names_in(tmp_path) == ["policy0", "policy2", "policy10"]
    assert names_in(tmp_path / "absent") == []
