"""Choose the CPU cores that the runtime's helper threads get.

More is not better: with all eight cores of an RK3588 the speed halves, and three big ones do about as
well as four. Fewer threads than NPU cores (up to three) makes rkllm_init fail. The library's own default
mask is right with 4 or 8 CPUs online and never written otherwise, as on the six cores of an RK3582.
"""

import re
from pathlib import Path

from msgspec import Struct

SYSFS = Path("/sys")

_MASKABLE = 8
_FEWEST = 3
_MOST = 4
# Two clusters of equal big cores differ by a few percent (RK3588 bins them one by one); the little
# ones have half the capacity. Frequencies lie closer, so they need a closer bound.
_SAME_CAPACITY = 0.8
_SAME_FREQUENCY = 0.93


class CpuChoice(Struct, frozen=True):
    """What enabled_cpus_num and enabled_cpus_mask are set to."""

    count: int
    mask: int
    """Bit n is CPU n."""


def big_cores(sysfs: Path = SYSFS) -> tuple[int, ...]:
    """Return the online CPUs of the fastest kind, rising; all of them where none is known to be slower.

    Source: devices/system/cpu/{online,cpuN/cpu_capacity,cpuN/cpufreq/cpuinfo_max_freq}.
    """
    speeds, same = _speeds(sysfs)
    fastest = max(speeds.values(), default=0)
    return tuple(sorted(cpu for cpu, speed in speeds.items() if speed >= same * fastest))


def choose_cpus(count: int | None = None, sysfs: Path = SYSFS) -> CpuChoice:
    """Return `count` (1 to 8) of CPU0 to CPU7, big ones first; without it four, or three of three big ones.

    Where fewer are online than that, the lowest numbers are named: the runtime insists on the count, and the
    kernel ignores the bits of absent CPUs.
    """
    speeds, _ = _speeds(sysfs)
    big = big_cores(sysfs)
    eligible = sorted(
        (cpu for cpu in speeds if cpu < _MASKABLE),
        key=lambda cpu: (cpu in big, speeds[cpu], cpu),
        reverse=True,
    )
    if count is None:
        enough = len(eligible) >= _FEWEST
        count = min(_MOST, max(_FEWEST, sum(cpu in big for cpu in eligible))) if enough else _MOST
    if len(eligible) < count:
        return CpuChoice(count, (1 << count) - 1)
    return CpuChoice(count, sum(1 << cpu for cpu in eligible[:count]))


def _speeds(sysfs: Path) -> tuple[dict[int, int], float]:
    """Return the speed of each online CPU, and from which share of the best it counts as the same kind."""
    folder = sysfs / "devices/system/cpu"
    online = _online(folder)
    for name, same in (("cpu_capacity", _SAME_CAPACITY), ("cpufreq/cpuinfo_max_freq", _SAME_FREQUENCY)):
        figures = {cpu: _number(folder / f"cpu{cpu}" / name) for cpu in online}
        if online and all(figures.values()):
            return figures, same
    return dict.fromkeys(online, 0), 1.0


def _online(folder: Path) -> list[int]:
    try:
        ranges = re.findall(r"(\d+)(?:-(\d+))?", (folder / "online").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []
    return [cpu for first, last in ranges for cpu in range(int(first), int(last or first) + 1)]


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
