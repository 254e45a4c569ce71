"""Model files, good and damaged."""

import os
from pathlib import Path

import pytest

from rkllm_mqtt.host.modelfile import MB, inspect_model
from rkllm_mqtt.host.modelkind import RKLLM_MAGIC, ModelKind


def write_model(path: Path, megabytes: int = 20) -> Path:
    path.write_bytes(RKLLM_MAGIC + b"\x5a" * (megabytes * MB - 4))
    return path


def codes(path: Path) -> list[str]:
    return [problem.code for problem in inspect_model(path).problems]


def test_a_whole_model_has_no_problems(tmp_path: Path) -> None:
    model = inspect_model(write_model(tmp_path / "Qwen2.5-1.5B-Instruct_w8a8_RK3588.rkllm"))
    assert (model.kind, model.platform, model.problems) == (ModelKind.RKLLM, "rk3588", ())
    assert model.size_bytes == 20 * MB
    assert model.loadable
    assert not model.simulated


def test_a_simulators_model_tells_its_platform_and_window(tmp_path: Path) -> None:
    path = tmp_path / "demo.sim"
    path.write_text("rkllm-simulator 1\n# comment\nplatform: RK3588\nmax_context: 4096\nprofile: instant\n")
    model = inspect_model(path)
    assert (model.simulated, model.platform, model.context_tokens) == (True, "rk3588", 4096)
    assert model.problems == ()


def test_a_missing_file_is_a_problem_with_a_hint(tmp_path: Path) -> None:
    model = inspect_model(tmp_path / "model.rkllm")
    assert not model.exists
    assert not model.loadable
    assert [(p.code, bool(p.hint)) for p in model.problems] == [("missing", True)]


def test_a_broken_link_a_folder_and_a_device_are_told_apart(tmp_path: Path) -> None:
    link = tmp_path / "link.rkllm"
    link.symlink_to(tmp_path / "gone")
    assert "link" in inspect_model(link).problems[0].sentence
    assert inspect_model(tmp_path).problems[0].sentence == "is a folder"
    assert codes(Path("/dev/null")) == ["not_a_file"]


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.rkllm")
    assert codes(tmp_path / "pipe.rkllm") == ["not_a_file"]


def test_a_small_file_is_suspected(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.rkllm", 3)
    assert codes(path) == ["too_small"]
    assert inspect_model(path).loadable


def test_a_download_with_a_hole_is_suspected(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.rkllm")
    with path.open("r+b") as file:
        file.seek(200 * MB)
        file.write(b"\x5a" * (2 * MB))
        told = os.lseek(file.fileno(), 0, os.SEEK_HOLE) < 202 * MB
    # A file system that keeps no holes cannot tell.
    assert codes(path) == (["sparse"] if told else [])


def test_a_tail_of_zeros_is_suspected(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.rkllm")
    with path.open("r+b") as file:
        file.seek(18 * MB)
        file.write(b"\0" * (2 * MB))
    assert codes(path) == ["zero_tail"]


def test_a_download_in_progress_is_suspected(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.rkllm")
    (tmp_path / "model.rkllm.aria2").touch()
    assert codes(path) == ["incomplete"]


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("qwen3-0.6b-rk3576-w4a16.rkllm", "rk3576"),
        ("TinyLlama_RK3588_w8a8.rkllm", "rk3588"),
        ("model-rv1126b.rkllm", "rv1126b"),
        ("qwen3.rkllm", None),
        ("dark3588x1.rkllm", None),
    ],
)
def test_the_platform_is_guessed_from_the_name(tmp_path: Path, name: str, platform: str | None) -> None:
    assert inspect_model(tmp_path / name).platform == platform
