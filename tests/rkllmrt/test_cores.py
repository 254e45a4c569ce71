"""The choice of CPU cores, on recorded trees of sysfs."""

from pathlib import Path

import pytest

from rkllmrt.cores import CpuChoice, big_cores, choose_cpus


def sysfs(
    root: Path, online: str, capacity: list[int] | None = None, frequency: list[int] | None = None
) -> Path:
    folder = root / "devices/system/cpu"
    folder.mkdir(parents=True)
    (folder / "online").write_text(f"{online}\n")
    for name, figures in (("cpu_capacity", capacity), ("cpufreq/cpuinfo_max_freq", frequency)):
        for cpu, figure in enumerate(figures or []):
            path = folder / f"cpu{cpu}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{figure}\n")
    return root


RK3588 = [530] * 4 + [1024, 1024, 1006, 1006]
RK3576 = [485] * 4 + [1024] * 4
RK3582 = [530] * 4 + [1024, 1024]


@pytest.mark.parametrize(
    ("online", "capacity", "big", "choice"),
    [
        ("0-7", RK3588, (4, 5, 6, 7), CpuChoice(4, 0xF0)),
        ("0-7", RK3576, (4, 5, 6, 7), CpuChoice(4, 0xF0)),
        ("0-5", RK3582, (4, 5), CpuChoice(3, 0b111000)),
        ("0-4,6-7", RK3588, (4, 6, 7), CpuChoice(3, 0b11010000)),
        ("0-3", RK3588[:4], (0, 1, 2, 3), CpuChoice(4, 0x0F)),
    ],
    ids=["rk3588", "rk3576", "rk3582", "rk3588 with one core off", "rk3588 with the big cores off"],
)
def test_big_cores_come_first_and_three_are_the_least(
    online: str, capacity: list[int], big: tuple[int, ...], choice: CpuChoice, tmp_path: Path
) -> None:
    root = sysfs(tmp_path, online, capacity)
    assert big_cores(root) == big
    assert choose_cpus(None, root) == choice


def test_frequencies_serve_where_the_kernel_tells_no_capacity(tmp_path: Path) -> None:
    root = sysfs(tmp_path, "0-7", None, [1_800_000] * 4 + [2_400_000, 2_400_000, 2_256_000, 2_256_000])
    assert big_cores(root) == (4, 5, 6, 7)


def test_equal_cores_are_all_big_and_four_of_the_first_eight_are_taken(tmp_path: Path) -> None:
    root = sysfs(tmp_path, "0-15")
    assert big_cores(root) == tuple(range(16))
    assert choose_cpus(None, root) == CpuChoice(4, 0xF0)


def test_a_wanted_number_is_filled_with_the_fastest(tmp_path: Path) -> None:
    root = sysfs(tmp_path, "0-7", RK3588)
    assert choose_cpus(2, root) == CpuChoice(2, 0b00110000)
    assert choose_cpus(5, root) == CpuChoice(5, 0b11111000)


@pytest.mark.parametrize("online", ["0", "0-1"])
def test_fewer_cores_than_the_runtime_insists_on_are_named_all_the_same(online: str, tmp_path: Path) -> None:
    assert choose_cpus(None, sysfs(tmp_path, online)) == CpuChoice(4, 0x0F)


def test_an_unreadable_tree_gives_the_usual_four(tmp_path: Path) -> None:
    assert big_cores(tmp_path) == ()
    assert choose_cpus(None, tmp_path) == CpuChoice(4, 0x0F)
