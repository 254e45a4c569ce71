"""What the doctor says about recorded boards."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from rkllm_mqtt.commands.doctoring.board import check_board
from rkllm_mqtt.commands.doctoring.finding import Finding, Level
from rkllm_mqtt.commands.doctoring.models import check_models
from rkllm_mqtt.commands.doctoring.subject import Subject, examine
from rkllm_mqtt.config import parse_config
from rkllm_mqtt.host.memory import Memory
from rkllm_mqtt.host.modelfile import inspect_model
from rkllm_mqtt.host.modelkind import RKLLM_MAGIC
from rkllm_mqtt.host.npu import read_board

TREES = Path(__file__).parents[1] / "host" / "trees"
LIBRARY = Path("/usr/lib/librkllmrt.so")


def subject_of(root: Path, *models: Path, simulated: bool = False) -> Subject:
    entries = "".join(f"  - {{id: m{n}, file: {path}}}\n" for n, path in enumerate(models))
    config = parse_config(f"models:\n{entries}" if models else "", "test", {})
    files = tuple((model, inspect_model(model.file)) for model in config.models)
    library = None if simulated else LIBRARY
    return Subject(config, root, library, simulated, False, read_board(root), files)


def board_findings(root: Path, *, simulated: bool = False) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_board(subject_of(root, simulated=simulated))}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TREES / "rk3588-bsp61", tmp_path / "board"))


@pytest.fixture
def whole_model(tmp_path: Path) -> Path:
    path = tmp_path / "qwen-rk3588.rkllm"
    path.write_bytes(RKLLM_MAGIC + b"\x5a" * (20 * 1_048_576))
    return path


def test_a_well_kept_board_is_all_right() -> None:
    found = board_findings(TREES / "rk3588-bsp61")
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert found["board"].sentence == "Radxa ROCK 5B, rk3588"
    assert found["NPU driver"].sentence == "rknpu 0.9.8"
    assert "/dev/dri/renderD129" in found["NPU device"].sentence
    assert "1000 of 1000 MHz" in found["NPU clock"].sentence
    assert set(found) >= {"CPU clocks", "memory clock", "temperature"}


def test_slow_clocks_are_warned_of_with_the_command_that_helps() -> None:
    found = board_findings(TREES / "rk3588-no-debugfs")
    for check in ("NPU clock", "CPU clocks", "memory clock"):
        assert found[check].level is Level.WARN
        assert "echo performance" in found[check].advice
    assert found["NPU clock"].sentence == "300 of 1000 MHz (rknpu_ondemand)."
    assert "cpu4-5 408 of 2352 MHz (ondemand)" in found["CPU clocks"].sentence


def test_an_unreadable_driver_version_is_skipped_with_the_way_to_read_it() -> None:
    found = board_findings(TREES / "rk3588-no-debugfs")["NPU driver"]
    assert found.level is Level.SKIPPED
    assert "sudo cat" in found.advice


def test_an_old_driver_and_a_hot_chip_are_found() -> None:
    found = board_findings(TREES / "rk3576")
    assert found["NPU driver"].level is Level.FAIL
    assert "0.9.2 is too old" in found["NPU driver"].sentence
    assert found["temperature"].level is Level.WARN


def test_a_driver_of_0_9_7_is_a_warning(board: Path) -> None:
    (board / "sys/kernel/debug/rknpu/version").write_text("RKNPU driver: v0.9.7\n")
    assert board_findings(board)["NPU driver"].level is Level.WARN


def test_the_mainline_driver_is_named() -> None:
    found = board_findings(TREES / "rk3588-mainline-rocket")
    assert found["NPU driver"].level is Level.FAIL
    assert "rocket" in found["NPU driver"].sentence
    assert found["NPU device"].level is Level.FAIL


def test_a_board_without_npu_driver_fails(board: Path) -> None:
    shutil.rmtree(board / "sys/kernel")
    shutil.rmtree(board / "sys/class/drm")
    shutil.rmtree(board / "sys/class/devfreq/fdab0000.npu")
    found = board_findings(board)
    assert found["NPU driver"].sentence == "No rknpu driver is loaded."
    assert found["NPU device"].level is Level.FAIL
    assert found["NPU clock"].level is Level.SKIPPED


def test_a_closed_device_names_the_group_to_join(board: Path) -> None:
    subject = subject_of(board)
    node = replace(subject.board.devices.npu[0], usable=False, owner="root:render 0660", group="render")
    devices = replace(subject.board.devices, npu=(node,))
    subject = replace(subject, board=replace(subject.board, devices=devices))
    found = next(finding for finding in check_board(subject) if finding.check == "NPU device")
    assert found.level is Level.FAIL
    assert "usermod -aG render" in found.advice


def test_a_limited_clock_is_told(board: Path) -> None:
    (board / "sys/class/devfreq/fdab0000.npu/max_freq").write_text("600000000\n")
    found = board_findings(board)["NPU clock"]
    assert (found.level, "limited to 600 MHz" in found.sentence) == (Level.WARN, True)


def test_another_computer_is_fine_for_the_simulator_only() -> None:
    assert board_findings(TREES / "x86", simulated=True)["board"].level is Level.SKIPPED
    assert board_findings(TREES / "x86")["board"].level is Level.FAIL


def levels(subject: Subject) -> list[Level]:
    return [finding.level for finding in check_models(subject)]


def test_a_fitting_model_is_all_right(whole_model: Path) -> None:
    subject = subject_of(TREES / "rk3588-bsp61", whole_model)
    assert levels(subject) == [Level.OK, Level.OK]
    assert "needs about 20 MB" in check_models(subject)[1].sentence


def test_a_missing_model_fails_alone(tmp_path: Path) -> None:
    assert levels(subject_of(TREES / "rk3588-bsp61", tmp_path / "none.rkllm")) == [Level.FAIL]


def test_a_model_for_another_chip_is_suspected(whole_model: Path) -> None:
    found = check_models(subject_of(TREES / "rk3576", whole_model))
    assert found[1].level is Level.WARN
    assert "rk3588" in found[1].sentence
    assert "rk3576" in found[1].advice


@pytest.mark.parametrize(
    ("total", "available", "level"), [(8, 4, Level.FAIL), (8000, 10, Level.WARN), (8000, 4000, Level.OK)]
)
def test_memory_is_compared_with_the_size_of_the_model(
    whole_model: Path, total: int, available: int, level: Level
) -> None:
    subject = subject_of(TREES / "rk3588-bsp61", whole_model)
    subject = replace(subject, board=replace(subject.board, memory=Memory(total, available)))
    assert levels(subject)[-1] is level


def test_models_of_the_wrong_kind_are_told_apart(whole_model: Path, tmp_path: Path) -> None:
    simulated = tmp_path / "demo.sim"
    simulated.write_text("rkllm-simulator 1\nmax_context: 2048\n")
    found = check_models(subject_of(TREES / "x86", whole_model, simulated=True))
    assert (found[0].level, "needs the NPU" in found[0].sentence) == (Level.FAIL, True)
    found = check_models(subject_of(TREES / "rk3588-bsp61", simulated))
    assert (found[0].level, "for the simulator" in found[0].sentence) == (Level.FAIL, True)
    found = check_models(subject_of(TREES / "x86", simulated, simulated=True))
    assert (found[0].level, "2048" in found[0].sentence) == (Level.FAIL, True)


def test_no_model_is_fine_for_the_simulator_only() -> None:
    assert levels(subject_of(TREES / "x86", simulated=True)) == [Level.OK]
    assert levels(subject_of(TREES / "rk3588-bsp61")) == [Level.FAIL]


def test_the_models_of_the_folder_are_checked_as_the_daemon_does(whole_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    config = parse_config(
        f"models_folder: {folder}\nruntime: {{library: /usr/lib/librkllmrt.so}}\n", "test", {}
    )
    (empty,) = check_models(examine(config, TREES / "rk3588-bsp61"))
    assert (empty.level, f"{folder} holds none." in empty.sentence) == (Level.FAIL, True)
    (folder / "good.rkllm").symlink_to(whole_model)
    (folder / "qwen-rk3576.rkllm").write_bytes(whole_model.read_bytes())
    (folder / "typo.rkllm").symlink_to(whole_model)
    (folder / "typo.yaml").write_text("nonsense: llama3\n")
    (folder / "odd name.rkllm").symlink_to(whole_model)
    found = {(f.check, f.level) for f in check_models(examine(config, TREES / "rk3588-bsp61"))}
    assert {("good", Level.OK), ("qwen-rk3576", Level.FAIL), ("typo", Level.FAIL)} <= found
    assert ("odd name.rkllm", Level.WARN) in found
