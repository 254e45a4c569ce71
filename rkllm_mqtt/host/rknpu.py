"""What the rknpu driver says of itself: in debugfs (root only), or in procfs (if the kernel was built so).

Source: rknpu driver 0.9.x. `version` is `RKNPU driver: v0.9.8`; `load` is
`NPU load:  Core0: 45%, Core1:  0%,` and so on with several cores and `NPU load:  3%` with one; the driver
refreshes it once a second.
"""

import re
from pathlib import Path

from rkllm_mqtt.host.kernelfile import read_text

FOLDERS = ("sys/kernel/debug/rknpu", "proc/rknpu")
MODULE_VERSION = "sys/module/rknpu/version"
"""There when the driver is a module with a version; read when neither folder may be."""

_VERSION = re.compile(r"(\d+\.\d+\.\d+)")
_CORE_LOAD = re.compile(r"Core\d+:\s*(\d*)\s*%")
_ONE_LOAD = re.compile(r"NPU load:\s*(\d*)\s*%")


def find_folder(root: Path) -> str | None:
    """Return the first of the driver's folders that this user can read; None when there is none."""
    for folder in FOLDERS:
        path = root / folder
        if read_text(path / "version") is not None or read_text(path / "load") is not None:
            return str(path)
    return None


def read_driver_version(root: Path, folder: str | None) -> str | None:
    """Return the version of the loaded driver, such as `0.9.8`; None when it cannot be known."""
    for path in ([f"{folder}/version"] if folder else []) + [str(root / MODULE_VERSION)]:
        found = _VERSION.search(read_text(path) or "")
        if found:
            return found[1]
    return None


def parse_load(text: str) -> tuple[int, ...] | None:
    """Return the load of each core in percent, core 0 first; None when the text has another form.

    An idle core may print nothing before its `%`: that is 0.
    """
    loads = _CORE_LOAD.findall(text) or _ONE_LOAD.findall(text)
    return tuple(min(100, int(load or 0)) for load in loads) if loads else None


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return `0.9.8` as (0, 9, 8) for comparing; None when there is no version in it."""
    found = _VERSION.search(text)
    return tuple(int(part) for part in found[1].split(".")) if found else None
