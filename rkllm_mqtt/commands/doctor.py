"""`rkllm-mqtt doctor`: look at everything that the daemon needs, say how it is and what to do."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from rkllm_mqtt.commands.demo_note import DemoNote, read_note
from rkllm_mqtt.commands.doctoring.finding import Finding, Group, exit_status
from rkllm_mqtt.commands.doctoring.screen import Screen, print_json
from rkllm_mqtt.config import Config, find_config, load_config, parse_config
from rkllm_mqtt.core.errors import ConfigError

GROUP = Group("Configuration")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration of the daemon to examine")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also load each model and ask the runtime what it does with caches; half a minute each",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as a list of JSON objects")
    parser.add_argument(
        "--root", type=Path, metavar="FOLDER", help="where /sys, /proc, /dev and /etc are found (default: /)"
    )


def run(args: Namespace) -> int:
    """Examine, show, and return 0 (fine, or warnings), 1 (a check failed) or 78 (configuration error)."""
    screen = None if args.json else Screen(sys.stdout)
    findings: list[Finding] = []
    config, demo, found = _configuration(args.config)
    if screen:
        screen.heading("rkllm-mqtt doctor")
    examined = config or parse_config("", "defaults")
    say = screen.waiting if screen else _nothing
    for group in _groups(examined, found, args, demo, say, usable=config is not None):
        findings += group
        if screen:
            screen.group(group)
    if screen:
        screen.summary(findings)
    else:
        print_json(findings)
    return exit_status(findings, config_usable=config is not None)


def _nothing(_what: str) -> None:
    """Say nothing: a script reads the output."""


def _configuration(named: Path | None) -> tuple[Config | None, DemoNote | None, Finding]:
    path = named or find_config()
    demo = read_note() if path is None else None
    if demo is not None:
        text = f"node: {demo.node}\nbase: {demo.base}\nmqtt: {{host: {demo.host!r}, port: {demo.port}}}\n"
        return parse_config(text, "demo"), demo, GROUP.ok("file", "none; the demo that runs now is examined")
    try:
        config = load_config(path)
    except ConfigError as exc:
        return None, None, GROUP.fail("file", f"{exc}.".replace("..", "."), exc.hint)
    if path is None:
        return config, None, GROUP.ok("file", f"none; the defaults are used (node {config.node})")
    return config, None, GROUP.ok("file", f"{path} (node {config.node})")


def _groups(
    config: Config,
    found: Finding,
    args: Namespace,
    demo: DemoNote | None,
    say: Callable[[str], None],
    *,
    usable: bool,
) -> Iterator[list[Finding]]:
    # Imported here: a mistake in the configuration is told without waiting for all of this.
    from rkllm_mqtt.commands.doctoring.board import check_board
    from rkllm_mqtt.commands.doctoring.broker import check_broker
    from rkllm_mqtt.commands.doctoring.broker_probe import probe_broker
    from rkllm_mqtt.commands.doctoring.journal import check_journal
    from rkllm_mqtt.commands.doctoring.models import check_models
    from rkllm_mqtt.commands.doctoring.software import check_software
    from rkllm_mqtt.commands.doctoring.subject import examine

    yield [found]
    say("looking at this computer; the first time, the simulator is built …")
    subject = examine(config, args.root, demo=demo is not None)
    yield check_software(subject)
    yield check_board(subject)
    if not usable:
        return  # models, journal and broker are those of the configuration
    yield check_models(subject)
    if demo is None:
        yield check_journal(subject)
    if args.probe and demo is None:
        yield from _caches(config, say)
    say("asking the broker …")
    yield check_broker(subject, probe_broker(config), time.time())


def _caches(config: Config, say: Callable[[str], None]) -> Iterator[list[Finding]]:
    """Yield the findings about caches, model by model."""
    from rkllm_mqtt.commands.doctoring.caches import check_caches
    from rkllm_mqtt.commands.doctoring.caches_probe import probe_caches

    findings = check_caches(probe_caches(config, say))
    for group in dict.fromkeys(finding.group for finding in findings):
        yield [finding for finding in findings if finding.group == group]
