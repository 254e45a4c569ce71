"""Board readings, on recorded trees of real formats."""

import shutil
import time
from pathlib import Path

import pytest

from rkllm_mqtt.host.npu import SEARCH_EVERY, BoardReader, read_board

TREES = Path(__file__).parent / "trees"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A copy of the RK3588 tree that a test may change."""
    return Path(shutil.copytree(TREES / "rk3588-bsp61", tmp_path / "board"))


def test_an_rk3588_with_debugfs_tells_everything() -> None:
    board = read_board(TREES / "rk3588-bsp61")
    assert (board.board_name, board.platform, board.driver_version) == ("Radxa ROCK 5B", "rk3588", "0.9.8")
    assert board.npu_load_percent == (45, 0, 0)
    assert board.npu_celsius == 47.2
    assert board.soc_celsius == 46.2
    assert board.load_average == (0.42, 0.31, 0.20)
    assert board.uptime_s == 86412.55
    assert (board.memory.total_mb, board.memory.available_mb) == (15934, 13877)


def test_the_clocks_are_told_in_megahertz_per_domain() -> None:
    board = read_board(TREES / "rk3588-bsp61")
    assert board.npu_clock is not None
    assert board.ddr_clock is not None
    npu, ddr = board.npu_clock, board.ddr_clock
    assert (npu.current_mhz, npu.maximum_mhz, npu.limit_mhz, npu.governor) == (
        1000,
        1000,
        1000,
        "performance",
    )
    assert npu.available_mhz == (300, 400, 500, 600, 700, 800, 900, 1000)
    assert (ddr.name, ddr.current_mhz, ddr.maximum_mhz) == ("ddr", 2112, 2112)
    clusters = [(c.name, c.current_mhz, c.maximum_mhz, c.governor) for c in board.cpu_clocks]
    assert clusters == [
        ("cpu0-3", 1800, 1800, "performance"),
        ("cpu4-5", 2352, 2352, "performance"),
        ("cpu6-7", 2352, 2352, "performance"),
    ]


def test_a_user_who_may_not_read_debugfs_still_gets_clocks_and_temperatures() -> None:
    board = read_board(TREES / "rk3588-no-debugfs")
    assert (board.platform, board.driver_version, board.npu_load_percent) == ("rk3588", None, None)
    assert board.npu_facts() == {"frequency_mhz": 300, "celsius": 38.8}
    assert board.npu_clock is not None
    assert board.npu_clock.governor == "rknpu_ondemand"


def test_an_rk3576_is_read_from_procfs_and_its_own_devfreq_name() -> None:
    board = read_board(TREES / "rk3576")
    assert (board.platform, board.driver_version) == ("rk3576", "0.9.2")
    assert board.npu_facts() == {"load_percent": [12, 88], "frequency_mhz": 900, "celsius": 86.5}
    assert board.ddr_clock is None


def test_a_mainline_kernel_has_no_rknpu_readings_but_a_platform() -> None:
    board = read_board(TREES / "rk3588-mainline-rocket")
    assert (board.platform, board.driver_version, board.npu_clock) == ("rk3588", None, None)
    assert board.npu_facts() == {"celsius": 40.0}
    assert [node.path for node in board.devices.mainline] == ["/dev/accel/accel0", "/dev/accel/accel1"]


def test_a_computer_without_npu_has_absent_readings_only() -> None:
    board = read_board(TREES / "x86")
    assert (board.board_name, board.platform, board.driver_version) == (None, None, None)
    assert board.npu_facts() == {}
    assert [clock.name for clock in board.cpu_clocks] == ["cpu0", "cpu1"]


def test_an_empty_root_gives_no_readings_and_no_error(tmp_path: Path) -> None:
    board = read_board(tmp_path)
    assert board.npu_facts() == {}
    assert (board.cpu_clocks, board.load_average, board.uptime_s) == ((), None, None)
    assert (board.memory.total_mb, board.memory.available_mb) == (None, None)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sys/kernel/debug/rknpu/load", "garbage"),
        ("sys/class/devfreq/fdab0000.npu/cur_freq", "fast"),
        ("sys/class/devfreq/fdab0000.npu/available_frequencies", "1000000000 turbo"),
        ("sys/class/thermal/thermal_zone6/temp", ""),
        ("proc/loadavg", "busy busy busy"),
        ("proc/uptime", ""),
        ("proc/meminfo", "MemTotal: lots\n\n:::"),
        ("proc/device-tree/compatible", "\xff\xfe"),
    ],
)
def test_garbled_files_are_absent_readings(board: Path, file: str, text: str) -> None:
    (board / file).write_text(text, "latin-1")
    readings = read_board(board)
    assert readings.board_name == "Radxa ROCK 5B"


def test_a_reader_sees_new_values_without_searching_again(board: Path) -> None:
    reader = BoardReader(board)
    reader.read()
    (board / "sys/kernel/debug/rknpu/load").write_text("NPU load:  Core0: 99%, Core1: 98%, Core2: 97%,\n")
    (board / "sys/class/devfreq/fdab0000.npu/cur_freq").write_text("600000000\n")
    assert reader.read().npu_facts() == {"load_percent": [99, 98, 97], "frequency_mhz": 600, "celsius": 47.2}


def test_a_path_that_vanishes_is_searched_again(board: Path) -> None:
    reader = BoardReader(board)
    reader.read()
    (board / "sys/kernel/debug/rknpu").rename(board / "proc/rknpu")
    (board / "sys/class/thermal/thermal_zone6").rename(board / "sys/class/thermal/thermal_zone9")
    (board / "sys/class/devfreq/fdab0000.npu").rename(board / "sys/class/devfreq/cafe0000.npu")
    readings = reader.read()
    assert readings.npu_facts() == {"load_percent": [45, 0, 0], "frequency_mhz": 1000, "celsius": 47.2}


def test_what_is_gone_for_good_becomes_absent(board: Path) -> None:
    reader = BoardReader(board)
    reader.read()
    shutil.rmtree(board / "sys")
    for _ in range(3):
        assert reader.read().npu_facts() == {}


def test_a_driver_that_is_loaded_later_is_noticed(board: Path) -> None:
    debugfs = board / "sys/kernel/debug/rknpu"
    debugfs.rename(board / "aside")
    reader = BoardReader(board)
    assert reader.read().npu_load_percent is None
    (board / "aside").rename(debugfs)
    for _ in range(SEARCH_EVERY + 1):
        readings = reader.read()
    assert readings.npu_load_percent == (45, 0, 0)
    assert readings.driver_version == "0.9.8"


def test_a_reading_costs_few_milliseconds_of_cpu() -> None:
    reader = BoardReader(TREES / "rk3588-bsp61")
    reader.read()
    began = time.process_time()
    for _ in range(20):
        reader.read()
    # CPU time, not wall time: other work on the machine must not fail this. Measured: 0.3 ms.
    assert (time.process_time() - began) / 20 < 0.010
