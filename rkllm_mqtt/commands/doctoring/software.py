"""Checks of what runs: Python, the runtime library and what it needs, limits of the process, the clock."""

import os
import platform
import resource
import struct
import time
from pathlib import Path

from rkllm_mqtt.commands.doctoring.finding import Finding, Group
from rkllm_mqtt.commands.doctoring.subject import Subject

GROUP = Group("Software")
OPEN_FILES = 8192
"""Fewer and the library may fail with "Too many open files"; Rockchip's demos raise the limit to 102,400."""
OLDEST_PLAUSIBLE = 1_704_067_200
"""2024-01-01 UTC: boards without a battery-backed clock boot in the past."""
_LIBRARY_FOLDERS = ("usr/lib", "lib", "usr/lib64", "lib64", "usr/local/lib")


def check_software(subject: Subject) -> list[Finding]:
    """Return the findings about this computer's software."""
    return [
        python(),
        library(subject),
        libgomp(subject),
        open_files(),
        clock(time.time()),
    ]


def python() -> Finding:
    """Report the interpreter; the package itself refuses to install on one that is too old."""
    bits = struct.calcsize("P") * 8
    return GROUP.ok("Python", f"{platform.python_version()}, {bits} bit, {platform.machine()}")


def library(subject: Subject) -> Finding:
    """Identify the runtime library without loading it; build the simulator where that is what will run."""
    if subject.library is None:
        return _simulator(subject)
    from rkllmrt.detection import identify
    from rkllmrt.elf import own_machine
    from rkllmrt.errors import LibraryRefused

    try:
        facts = identify(subject.library, subject.config.runtime.version)
    except LibraryRefused as exc:
        return GROUP.fail("runtime", f"{exc}.", _sentence(exc.hint))
    named = f"librkllmrt {facts.version or 'of unknown version'} ({subject.library})"
    if facts.machine != own_machine():
        built = f"{facts.machine.name}, {facts.machine.bits} bit"
        return GROUP.fail(
            "runtime", f"{named} is built for {built}.", "Take the library of this system's SDK folder."
        )
    if subject.simulated:
        return GROUP.ok("runtime", f"{named} is the simulator")
    if facts.warnings:
        advice = "State the release in `runtime.version` if you know it; report unknown ones."
        return GROUP.warn("runtime", f"{named}: {'; '.join(facts.warnings)}.", advice)
    if facts.group == "A":
        advice = "Release 1.2.3 or newer reuses the prompt's known beginning; convert the models anew for it."
        return GROUP.warn("runtime", f"{named} computes the whole prompt each time.", advice)
    return GROUP.ok("runtime", named)


def _simulator(subject: Subject) -> Finding:
    from rkllmrt import simulator

    wanted = subject.config.runtime.simulator
    version = subject.config.runtime.simulator_version
    if wanted is False:
        advice = (
            "Install librkllmrt.so into /usr/lib, or name it in `runtime.library`; name a model in `models`."
        )
        return GROUP.fail(
            "runtime", "No runtime library was found, and the simulator is switched off.", advice
        )
    try:
        simulator.build(version)
    except (OSError, ValueError, RuntimeError) as exc:
        reason = str(exc).splitlines()[0]
        return GROUP.fail(
            "runtime", f"The simulator cannot be built: {reason}.", _sentence(getattr(exc, "hint", ""))
        )
    if subject.rockchip and wanted is None:
        advice = (
            "Install librkllmrt.so into /usr/lib, or name it in `runtime.library`; add a model to `models`."
        )
        return GROUP.warn("runtime", f"The simulator of {version} answers, not this board's NPU.", advice)
    return GROUP.ok("runtime", f"simulator of librkllmrt {version}; no NPU is needed")


def libgomp(subject: Subject) -> Finding:
    """Look for the OpenMP library, which the runtime needs and slim systems lack."""
    if subject.simulated:
        return GROUP.skip("libgomp", "Not needed by the simulator.")
    found = find_shared_library(subject.root, "libgomp.so.1")
    if found is None:
        return GROUP.fail(
            "libgomp", "libgomp.so.1 was not found.", "Install it: `sudo apt install libgomp1`."
        )
    return GROUP.ok("libgomp", str(found))


def find_shared_library(root: Path, name: str) -> Path | None:
    """Return the library in LD_LIBRARY_PATH or one of the usual folders and their architecture subfolders."""
    named = [Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]
    for folder in [*named, *(root / folder for folder in _LIBRARY_FOLDERS)]:
        for path in (folder / name, *sorted(folder.glob(f"*-linux-gnu*/{name}"))):
            if path.exists():
                return path
    return None


def open_files() -> Finding:
    """Check how many files a process may open; the daemon may raise its soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        advice = "Set LimitNOFILE=102400 in the service, or raise `ulimit -Hn`."
        return GROUP.warn("open files", f"A process may open {hard} files at most.", advice)
    return GROUP.ok(
        "open files", f"{soft} now, up to {'any number' if hard == resource.RLIM_INFINITY else hard}"
    )


def clock(now: float) -> Finding:
    """Check that the date is plausible: answers carry it, and TLS certificates depend on it.

    Args:
        now: Unix seconds.
    """
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < OLDEST_PLAUSIBLE:
        advice = "Switch on network time: `sudo timedatectl set-ntp true`; deadlines are safe, TLS is not."
        return GROUP.warn("date", f"It is {date}, says the clock.", advice)
    return GROUP.ok("date", date)


def _sentence(hint: str) -> str:
    return f"{hint[0].upper()}{hint[1:].rstrip('.')}." if hint else ""
