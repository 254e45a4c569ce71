"""Temperatures from the kernel's thermal zones."""

from pathlib import Path

from msgspec import Struct

from rkllm_mqtt.host.kernelfile import names_in, read_int, read_text

THERMAL = "sys/class/thermal"


class ThermalZones(Struct, frozen=True):
    """The `temp` files of the zones that are read; None for a zone that the board does not have."""

    npu: str | None
    soc: str | None

    @staticmethod
    def find(root: Path) -> "ThermalZones":
        """Search the zones by their type: the numbers differ between kernels."""
        files: dict[str, str] = {}
        for zone in names_in(root / THERMAL):
            kind = read_text(root / THERMAL / zone / "type")
            if kind and zone.startswith("thermal_zone"):
                files.setdefault(kind, str(root / THERMAL / zone / "temp"))
        soc = next(
            (files[kind] for kind in ("soc-thermal", "package-thermal", "cpu-thermal") if kind in files), None
        )
        return ThermalZones(npu=files.get("npu-thermal"), soc=soc)


def read_celsius(file: str | None) -> float | None:
    """Return a zone's temperature in degrees Celsius, one decimal; None when the sensor does not answer."""
    millidegrees = None if file is None else read_int(file)
    return None if millidegrees is None else round(millidegrees / 1000, 1)
