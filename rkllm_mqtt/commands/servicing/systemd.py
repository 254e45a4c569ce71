"""Ask systemd, where it runs this machine, to take notice of what was put in place."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rkllm_mqtt.commands.failure import CommandFailed

_BOOTED = Path("/run/systemd/system")
_LIMIT_S = 120


def is_running() -> bool:
    """Return whether systemd runs this machine. Source: sd_booted(3)."""
    return _BOOTED.is_dir()


def do(*line: str) -> None:
    """Run one of systemd's tools.

    Raises:
        CommandFailed: It failed; the message has its last line.
    """
    done = _run(line)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise CommandFailed(
            f"{' '.join(line)}: {words[-1]}", "`journalctl -u rkllm-mqtt` may have the reason."
        )


def attempt(*line: str) -> None:
    """Run a tool whose absence or failure is no harm."""
    if shutil.which(line[0]):
        _run(line)


def properties(unit: str, names: Sequence[str]) -> Mapping[str, str]:
    """Return properties of a unit; none where systemctl cannot be asked."""
    if not shutil.which("systemctl"):
        return {}
    done = _run(("systemctl", "show", unit, "--property", ",".join(names)))
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs if name in names}


def _run(line: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(line, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CommandFailed(f"{' '.join(line)}: {exc}") from exc
