"""Which board and which system on chip this is, as the device tree says."""

import re
from pathlib import Path

from rkllm_mqtt.host.kernelfile import read_bytes, read_text

FOLDERS = ("sys/firmware/devicetree/base", "proc/device-tree")

_SOC = re.compile(r"rockchip,((?:rk|rv)\d{3,4})([a-z]*)")


def read_platform(root: Path) -> str | None:
    """Return the platform by which models are converted: `rk3588`, `rk3576`, ...; None elsewhere.

    The list of compatible names runs from the exact board to the most general chip, so the last chip in it
    decides: a board with an RK3588S or an RK3582 runs models for `rk3588`.
    """
    for folder in FOLDERS:
        raw = read_bytes(root / folder / "compatible")
        if raw is not None:
            return parse_platform(raw.decode("ascii", "replace").split("\0"))
    return None


def parse_platform(compatible: list[str]) -> str | None:
    """Return the platform of a list of compatible names, most exact first; None without a Rockchip chip."""
    for name in reversed(compatible):
        found = _SOC.fullmatch(name.strip())
        if found:
            # Only the RV1126B has its letter in the platform's name; the S of an RK3588S is a package.
            return found[1] + ("b" if found[1] == "rv1126" and found[2].startswith("b") else "")
    return None


def read_model_name(root: Path) -> str | None:
    """Return the board's name, such as `Radxa ROCK 5B`; None where there is no device tree."""
    for folder in FOLDERS:
        name = read_text(root / folder / "model")
        if name:
            return name
    return None
