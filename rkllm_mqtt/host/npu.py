"""Readings of the board: NPU load, clocks, temperatures, driver, memory.

Rule 1: what this kernel, driver or user cannot tell is None or empty; no reading raises.
Rule 2: `BoardReader.read` is called every few seconds by the health topic and takes well under 3 ms, because
paths are searched once and only values are read again.
"""

from pathlib import Path

from msgspec import Struct

from rkllm_mqtt.host import clocks, devicetree, rknpu
from rkllm_mqtt.host.clocks import Clock, ClockSource
from rkllm_mqtt.host.devices import NpuDevices, find_devices
from rkllm_mqtt.host.kernelfile import read_text
from rkllm_mqtt.host.memory import Memory, read_memory
from rkllm_mqtt.host.thermal import ThermalZones, read_celsius

SEARCH_EVERY = 64
"""Reads after which the paths are searched again, to notice a driver that was loaded later."""


class BoardReadings(Struct, frozen=True):
    """The board at one moment."""

    board_name: str | None
    """As the maker wrote it into the device tree, such as `Radxa ROCK 5B`."""
    platform: str | None
    """`rk3588`, `rk3576`, ...: what a model must be converted for. None off a Rockchip board."""
    driver_version: str | None
    """Of the rknpu driver, such as `0.9.8`; None when there is none, or its version is for root only."""
    npu_load_percent: tuple[int, ...] | None
    """Per core, core 0 first, averaged by the driver over its last second; root only on most kernels."""
    npu_clock: Clock | None
    npu_celsius: float | None
    soc_celsius: float | None
    cpu_clocks: tuple[Clock, ...]
    """One per cluster, the cluster of CPU 0 first."""
    ddr_clock: Clock | None
    memory: Memory
    load_average: tuple[float, ...] | None
    """Runnable tasks over 1, 5 and 15 minutes."""
    uptime_s: float | None
    devices: NpuDevices
    """As of the last search, up to `SEARCH_EVERY` reads ago."""

    @property
    def npu_frequency_mhz(self) -> int | None:
        """Return the NPU's clock as it is now."""
        return self.npu_clock.current_mhz if self.npu_clock else None

    def npu_facts(self) -> dict[str, object]:
        """Return `load_percent`, `frequency_mhz` and `celsius` for the health topic, absent ones left out."""
        facts: dict[str, object] = {}
        if self.npu_load_percent is not None:
            facts["load_percent"] = list(self.npu_load_percent)
        if self.npu_frequency_mhz is not None:
            facts["frequency_mhz"] = self.npu_frequency_mhz
        if self.npu_celsius is not None:
            facts["celsius"] = self.npu_celsius
        return facts


class BoardSources(Struct, frozen=True):
    """Where the readings of this board are, and the facts that do not change while it runs."""

    board_name: str | None
    platform: str | None
    driver_folder: str | None
    driver_version: str | None
    npu_clock: ClockSource | None
    ddr_clock: ClockSource | None
    cpu_clocks: tuple[ClockSource, ...]
    zones: ThermalZones
    devices: NpuDevices

    @staticmethod
    def find(root: Path) -> "BoardSources":
        """Search everything under `root`."""
        folder = rknpu.find_folder(root)
        return BoardSources(
            board_name=devicetree.read_model_name(root),
            platform=devicetree.read_platform(root),
            driver_folder=folder,
            driver_version=rknpu.read_driver_version(root, folder),
            npu_clock=clocks.find_npu_clock(root),
            ddr_clock=clocks.find_ddr_clock(root),
            cpu_clocks=clocks.find_cpu_clocks(root),
            zones=ThermalZones.find(root),
            devices=find_devices(root),
        )


class BoardReader:
    """Reads the board again and again; the paths are searched once, and again when one of them vanishes."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._sources: BoardSources | None = None
        self._answering: frozenset[str] = frozenset()
        self._reads = 0

    def read(self) -> BoardReadings:
        """Return the readings of this moment; never raises."""
        if self._sources is None or self._reads >= SEARCH_EVERY:
            return self._search_and_read()
        self._reads += 1
        readings = self._values(self._sources)
        # Only what answered the last time and now does not: a sensor that is silent for good must not make
        # every read as dear as a search.
        return readings if self._answering <= _answering(readings) else self._search_and_read()

    def _search_and_read(self) -> BoardReadings:
        self._sources = BoardSources.find(self._root)
        self._reads = 0
        readings = self._values(self._sources)
        self._answering = _answering(readings)
        return readings

    def _values(self, sources: BoardSources) -> BoardReadings:
        return BoardReadings(
            board_name=sources.board_name,
            platform=sources.platform,
            driver_version=sources.driver_version,
            npu_load_percent=_load(sources.driver_folder),
            npu_clock=sources.npu_clock.read() if sources.npu_clock else None,
            npu_celsius=read_celsius(sources.zones.npu),
            soc_celsius=read_celsius(sources.zones.soc),
            cpu_clocks=tuple(source.read() for source in sources.cpu_clocks),
            ddr_clock=sources.ddr_clock.read() if sources.ddr_clock else None,
            memory=read_memory(self._root),
            load_average=_load_average(self._root),
            uptime_s=_uptime(self._root),
            devices=sources.devices,
        )


def read_board(root: Path = Path("/")) -> BoardReadings:
    """Return the readings once; whoever reads repeatedly keeps a `BoardReader`."""
    return BoardReader(root).read()


def _answering(readings: BoardReadings) -> frozenset[str]:
    values = {
        "load": readings.npu_load_percent,
        "npu": readings.npu_clock and readings.npu_clock.governor,
        "ddr": readings.ddr_clock and readings.ddr_clock.governor,
        "npu_celsius": readings.npu_celsius,
        "soc_celsius": readings.soc_celsius,
        **{clock.name: clock.governor for clock in readings.cpu_clocks},
    }
    return frozenset(name for name, value in values.items() if value is not None)


def _load(folder: str | None) -> tuple[int, ...] | None:
    # The `load` of devfreq is no substitute: the driver reports no busy time there (`0@1000000000Hz`).
    return rknpu.parse_load(read_text(f"{folder}/load") or "") if folder else None


def _load_average(root: Path) -> tuple[float, ...] | None:
    words = (read_text(root / "proc/loadavg") or "").split()[:3]
    try:
        return tuple(float(word) for word in words) if words else None
    except ValueError:
        return None


def _uptime(root: Path) -> float | None:
    try:
        return float((read_text(root / "proc/uptime") or "").split()[0])
    except (ValueError, IndexError):
        return None
