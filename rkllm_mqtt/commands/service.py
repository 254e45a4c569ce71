"""`rkllm-mqtt service`: put the daemon under systemd, take it away again, say how it is."""

import argparse
import json
import os
from pathlib import Path

from rkllm_mqtt.commands.failure import EXIT_FAILED, CommandFailed
from rkllm_mqtt.commands.servicing import systemd
from rkllm_mqtt.commands.servicing.placement import Placement
from rkllm_mqtt.commands.servicing.servicefiles import (
    CACHE,
    CLOCKS,
    CONFIG,
    PLACES,
    STATE,
    UNIT,
    WANTS,
    program,
    service_files,
)
from rkllm_mqtt.config import Config, ConfigError, load_config

EXIT_INACTIVE = 3
"""As LSB's init scripts: it is not running."""
_SHOWN = ("ActiveState", "SubState", "StatusText", "MainPID", "NRestarts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("action", choices=("install", "uninstall", "status"), help="what to do")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="of another system, such as a mounted image",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--config", type=Path, default=CONFIG, metavar="FILE", help=f"of the daemon; default: {CONFIG}"
    )
    parser.add_argument("--clocks", action="store_true", help="install: also fix NPU, CPU and memory clocks")
    parser.add_argument("--no-start", action="store_true", help="install: not now, but at the next boot")
    parser.add_argument(
        "--purge", action="store_true", help="uninstall: remove configuration, prompts and answers, too"
    )
    parser.add_argument("--json", action="store_true", help="status: for scripts")


def run(args: argparse.Namespace) -> int:
    """Carry the action out; return the exit status.

    Raises:
        CommandFailed: This user may not, or this machine does not run systemd.
    """
    root = args.root.absolute()
    is_here = root == Path("/")
    if args.action == "status":
        return _status(Placement(root, _silent), is_here=is_here, as_json=args.json)
    if is_here and not systemd.is_running() and not args.dry_run:
        raise CommandFailed(
            "this machine is not run by systemd",
            "For an image or a container: `--root DIR`. Elsewhere let your supervisor run "
            f"`{' '.join(program())} run`.",
        )
    place = Placement(root, _told_would if args.dry_run else _told, dry_run=args.dry_run)
    acts_on_system = is_here and not args.dry_run
    try:
        if args.action == "install":
            return _install(args, place, acts_on_system=acts_on_system)
        return _uninstall(args, place, acts_on_system=acts_on_system)
    except PermissionError as exc:
        line = " ".join((*program(), "service", args.action))
        raise CommandFailed(f"{exc.filename}: {exc.strerror}", f"It needs root: `sudo {line}`") from exc


def _install(args: argparse.Namespace, place: Placement, *, acts_on_system: bool) -> int:
    config_file = Path(os.path.abspath(args.config))  # noqa: PTH100 - links stay as the person named them
    config, mistake = _config(place.at(config_file))
    try:
        for file in service_files(config_file, config):
            place.write(file)
        place.link(WANTS / UNIT, PLACES[UNIT])
        if args.clocks:
            place.link(WANTS / CLOCKS, PLACES[CLOCKS])
    finally:
        place.close()
    if not acts_on_system:
        return 0
    systemd.do("systemd-sysusers", str(PLACES["rkllm-mqtt.sysusers"]))
    systemd.do("systemd-tmpfiles", "--create", str(PLACES["rkllm-mqtt.tmpfiles"]))
    systemd.attempt("udevadm", "control", "--reload")
    systemd.attempt("udevadm", "trigger", "--subsystem-match=misc", "--subsystem-match=dma_heap")
    systemd.do("systemctl", "daemon-reload")
    if mistake is not None:
        print(f"not started: {mistake}")
        print(f"  {mistake.hint or 'Mend it'}; then: systemctl start rkllm-mqtt")
        return EXIT_FAILED
    if not args.no_start:
        if args.clocks:
            systemd.do("systemctl", "restart", CLOCKS)
        systemd.do("systemctl", "restart", UNIT)
        print("started; `rkllm-mqtt service status` says how it is, `journalctl -fu rkllm-mqtt` what it does")
    return 0


def _uninstall(args: argparse.Namespace, place: Placement, *, acts_on_system: bool) -> int:
    if not place.made and not args.purge:
        print("nothing is installed")
        return 0
    if acts_on_system and str(PLACES[UNIT]) in place.made:
        systemd.attempt("systemctl", "stop", UNIT, CLOCKS)
    places = [Path(name) for name in sorted(place.made)]
    try:
        # Links first: a unit that is gone must not be wanted at boot.
        places.sort(key=lambda one: place.made[str(one)] != "link")
        place.remove(places, keep=() if args.purge else (CONFIG,))
        if not args.purge:
            place.made.pop(str(CONFIG), None)
    finally:
        place.close()
    if args.purge:
        for folder in (CONFIG.parent, STATE, CACHE):
            place.purge(folder)
    else:
        print(
            f"configuration, prompts and answers stay in {CONFIG.parent} and {STATE}: `--purge` removes them"
        )
    if acts_on_system:
        systemd.attempt("systemctl", "daemon-reload")
        systemd.attempt("udevadm", "control", "--reload")
        print("the user rkllm-mqtt stays, for files may still be its own: `userdel rkllm-mqtt` removes it")
    return 0


def _status(place: Placement, *, is_here: bool, as_json: bool) -> int:
    files = {str(path): _state_of(place, path) for path in PLACES.values()}
    links = {unit: place.at(WANTS / unit).is_symlink() for unit in (UNIT, CLOCKS)}
    installed = files[str(PLACES[UNIT])] != "missing"
    shown = systemd.properties(UNIT, _SHOWN) if is_here and systemd.is_running() else {}
    if as_json:
        members = {"installed": installed, "files": files, "at_boot": links, "unit": dict(shown)}
        print(json.dumps(members, indent=2))
    elif not installed:
        print("not installed: `rkllm-mqtt service install`")
    else:
        for path, state in files.items():
            print(f"{state:12} {path}")
        print("starts at boot: " + (", ".join(unit for unit, yes in links.items() if yes) or "nothing"))
        for name, value in shown.items():
            print(f"{name:12} {value}")
    is_active = shown.get("ActiveState", "active") in ("active", "reloading", "activating")
    return 0 if installed and is_active else EXIT_INACTIVE


def _state_of(place: Placement, path: Path) -> str:
    there, made = place.at(path), place.made.get(str(path))
    if not there.is_file():
        return "missing"
    return "installed" if made is not None and place.is_as_made(path) else "changed"


def _config(path: Path) -> tuple[Config, ConfigError | None]:
    """Return the configuration that the daemon will have, and what is wrong with it."""
    if not path.exists():
        return Config(), None
    try:
        return load_config(path), None
    except ConfigError as exc:
        return Config(), exc


def _told(what: str, path: Path) -> None:
    print(f"{what:12} {path}")


def _told_would(what: str, path: Path) -> None:
    print(
        f"would {what:12} {path}"
        if what in ("write", "update", "link", "remove", "purge")
        else f"{what:18} {path}"
    )


def _silent(what: str, path: Path) -> None:
    """Say nothing: only the state is asked."""
