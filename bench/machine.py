"""What the figures were measured on, without names or paths that belong to its owner."""

import os
import platform
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.broker import find_mosquitto


def describe(folder: Path, library: Path) -> dict[str, Any]:
    """Return facts of the machine, the disk of `folder` and the software."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "journal_file_system": file_system(folder),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "paho": version("paho-mqtt"),
        "mosquitto": _mosquitto(),
        "library": library.name.split("-")[1] if "-" in library.name else library.name,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Hardware", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def file_system(folder: Path) -> str:
    """Return the type of the file system, such as ext4; on tmpfs a sync costs nothing."""
    device = folder.stat().st_dev
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        major, minor = fields.split()[2].split(":")
        if os.makedev(int(major), int(minor)) == device:
            return rest.split()[0]
    return "unknown"


def _mosquitto() -> str:
    program = find_mosquitto()
    if program is None:
        return "absent"
    told = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    return told.splitlines()[0].removeprefix("mosquitto version ") if told else "unknown"
