"""Clocks of the board: NPU and memory from devfreq, CPU clusters from cpufreq."""

from pathlib import Path

from msgspec import Struct

from rkllm_mqtt.host.kernelfile import names_in, read_int, read_text

DEVFREQ = "sys/class/devfreq"
CPUFREQ = "sys/devices/system/cpu/cpufreq"
KNOWN_NPUS = ("fdab0000.npu", "27700000.npu")
"""devfreq names of RK3588 and RK3576; any other name that ends in `.npu` is taken as well."""


class Clock(Struct, frozen=True):
    """One clock domain. Frequencies in MHz, None when the kernel does not tell."""

    name: str
    """`npu`, `ddr`, or the cluster's CPUs, such as `cpu0-3`."""
    current_mhz: int | None
    maximum_mhz: int | None
    """The highest that the hardware offers, whatever the governor or a limit allows now."""
    limit_mhz: int | None
    """The highest that is allowed now (`max_freq`, `scaling_max_freq`)."""
    governor: str | None
    available_mhz: tuple[int, ...] = ()
    """Rising; empty when the kernel does not list them."""


class ClockSource(Struct, frozen=True):
    """Where one clock is read, with the part that never changes."""

    name: str
    directory: str
    current: str
    limit: str
    governor: str
    per_mhz: int
    """1,000,000 for devfreq, which counts in Hz; 1,000 for cpufreq, which counts in kHz."""
    maximum_mhz: int | None
    available_mhz: tuple[int, ...]

    def read(self) -> Clock:
        """Return the clock as it is now."""
        return Clock(
            name=self.name,
            current_mhz=self._mhz(self.current),
            maximum_mhz=self.maximum_mhz,
            limit_mhz=self._mhz(self.limit),
            governor=read_text(f"{self.directory}/{self.governor}"),
            available_mhz=self.available_mhz,
        )

    def _mhz(self, file: str) -> int | None:
        value = read_int(f"{self.directory}/{file}")
        return None if value is None else round(value / self.per_mhz)


def find_npu_clock(root: Path) -> ClockSource | None:
    """Return the devfreq device of the NPU, the known names first; None when no driver offers one."""
    names = [name for name in names_in(root / DEVFREQ) if name.endswith(".npu")]
    names.sort(key=lambda name: name not in KNOWN_NPUS)
    return _devfreq(root, "npu", names[0]) if names else None


def find_ddr_clock(root: Path) -> ClockSource | None:
    """Return the devfreq device of the DRAM controller; None when the kernel does not scale it."""
    return _devfreq(root, "ddr", "dmc") if "dmc" in names_in(root / DEVFREQ) else None


def find_cpu_clocks(root: Path) -> tuple[ClockSource, ...]:
    """Return one source per CPU cluster (cpufreq policy), lowest CPU first."""
    policies = [name for name in names_in(root / CPUFREQ) if name.startswith("policy")]
    return tuple(_policy(root / CPUFREQ / name) for name in policies)


def _devfreq(root: Path, name: str, device: str) -> ClockSource:
    directory = root / DEVFREQ / device
    listed = (read_text(directory / "available_frequencies") or "").split()
    available = tuple(sorted(round(int(hz) / 1_000_000) for hz in listed if hz.isdigit()))
    limit = read_int(directory / "max_freq")
    allowed = None if limit is None else round(limit / 1_000_000)
    return ClockSource(
        name=name,
        directory=str(directory),
        current="cur_freq",
        limit="max_freq",
        governor="governor",
        per_mhz=1_000_000,
        maximum_mhz=available[-1] if available else allowed,
        available_mhz=available,
    )


def _policy(directory: Path) -> ClockSource:
    listed = (read_text(directory / "scaling_available_frequencies") or "").split()
    maximum = read_int(directory / "cpuinfo_max_freq")
    return ClockSource(
        name=f"cpu{_span(read_text(directory / 'related_cpus') or directory.name.removeprefix('policy'))}",
        directory=str(directory),
        # cpuinfo_cur_freq asks the hardware and is for root alone; scaling_cur_freq is for everybody.
        current="scaling_cur_freq",
        limit="scaling_max_freq",
        governor="scaling_governor",
        per_mhz=1_000,
        maximum_mhz=None if maximum is None else round(maximum / 1_000),
        available_mhz=tuple(sorted(round(int(khz) / 1_000) for khz in listed if khz.isdigit())),
    )


def _span(cpus: str) -> str:
    numbers = cpus.split()
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
