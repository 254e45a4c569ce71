"""The files of the service, with the paths of this installation in them."""

import re
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

import rkllm_mqtt
from rkllm_mqtt.commands.failure import CommandFailed
from rkllm_mqtt.config import Config
from rkllm_mqtt.config.example import build_example

UNIT = "rkllm-mqtt.service"
CLOCKS = "rkllm-mqtt-clocks.service"
CONFIG = Path("/etc/rkllm-mqtt/rkllm-mqtt.yaml")
STATE = Path("/var/lib/rkllm-mqtt")
CACHE = Path("/var/cache/rkllm-mqtt")
PLACES = {
    UNIT: Path("/etc/systemd/system") / UNIT,
    CLOCKS: Path("/etc/systemd/system") / CLOCKS,
    "rkllm-mqtt.sysusers": Path("/etc/sysusers.d/rkllm-mqtt.conf"),
    "rkllm-mqtt.tmpfiles": Path("/etc/tmpfiles.d/rkllm-mqtt.conf"),
    "rkllm-mqtt.rules": Path("/etc/udev/rules.d/70-rkllm-mqtt.rules"),
}
WANTS = Path("/etc/systemd/system/multi-user.target.wants")
"""A link in here starts a unit at boot."""

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_HIDDEN = (*_HOMES, Path("/tmp"), Path("/var/tmp"))
"""Folders that the unit's sandbox hides from the daemon."""


class ServiceFile(Struct, frozen=True):
    """One file to put in place."""

    place: Path
    """Absolute, as on the running system."""
    text: str
    mode: int = 0o644


def program() -> tuple[str, ...]:
    """Return the command line that starts this installation."""
    script = Path(sys.prefix) / "bin" / "rkllm-mqtt"
    return (str(script),) if script.is_file() else (sys.executable, "-P", "-m", "rkllm_mqtt")


def own_folders() -> set[Path]:
    """Return the folders that this installation needs to run: environment, interpreter, our own code."""
    package = Path(rkllm_mqtt.__file__).resolve().parent
    bindings = _bindings().resolve()
    folders = {Path(sys.prefix), Path(sys.base_prefix), package.parent, bindings.parent}
    return {
        one for one in folders if not any(one != other and one.is_relative_to(other) for other in folders)
    }


def service_files(config_file: Path, config: Config) -> list[ServiceFile]:
    """Return the files, in the order in which they are put in place.

    Args:
        config_file: What the unit's ExecStart names.
        config: What it holds now; tells which folders the daemon must reach.

    Raises:
        CommandFailed: This installation does not have them.
    """
    found = []
    for name, place in PLACES.items():
        text = _source(name)
        if name == UNIT:
            text = render_unit(text, program(), config_file, config, own_folders())
        found.append(ServiceFile(place, text))
    if config_file == CONFIG:
        found.append(ServiceFile(CONFIG, build_example(), 0o640))
    return found


def render_unit(
    text: str, line: Sequence[str], config_file: Path, config: Config, folders: Iterable[Path]
) -> str:
    """Return the unit for an installation.

    Args:
        text: The unit as it is shipped.
        line: Program and arguments that start `rkllm-mqtt`.
        config_file: Of the daemon.
        config: What it holds now.
        folders: What the program needs to run.
    """
    command = " ".join(map(_quoted, (*line, "run", "--config", str(config_file))))
    text = re.sub(r"^ExecStart=.*$", lambda _: f"ExecStart={command}", text, flags=re.MULTILINE)
    models = [*(model.file for model in config.models), *filter(None, [config.models_folder])]
    libraries = [config.runtime.library] if config.runtime.library else []
    hidden = {path for path in (*folders, config_file, *models, *libraries) if _is_below(path, _HIDDEN)}
    added = [f"BindReadOnlyPaths=-{_quoted(str(path))}" for path in sorted(hidden)]
    if any(_is_below(path, _HOMES) for path in hidden):
        # Empty folders instead of inaccessible ones, or nothing could be shown in them.
        text = text.replace("ProtectHome=yes\n", "ProtectHome=tmpfs\n")
    journal = config.journal.path.parent
    if not journal.is_relative_to(STATE):
        added.append(f"ReadWritePaths={_quoted(str(journal))}")
    return text.replace("\n[Install]\n", "".join(f"{one}\n" for one in added) + "\n[Install]\n")


def _source(name: str) -> str:
    checkout = Path(rkllm_mqtt.__file__).resolve().parents[1]
    installed = Path(sysconfig.get_path("data")) / "share" / "rkllm-mqtt"
    for folder in (checkout / "systemd", installed / "systemd"):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8")
    raise CommandFailed(
        f"this installation has no {name}", "Install rkllm-mqtt anew, from a wheel or a checkout."
    )


def _bindings() -> Path:
    from importlib.util import find_spec

    spec = find_spec("rkllmrt")
    if spec is None or spec.origin is None:
        raise CommandFailed("this installation has no rkllmrt", "Install rkllm-mqtt anew.")
    return Path(spec.origin).parent


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _quoted(word: str) -> str:
    """Return a word as systemd reads it back: no specifiers, no variables, one word."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if re.search(r"[\s'\";]|\\", word) else word
