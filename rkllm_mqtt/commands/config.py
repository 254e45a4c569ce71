"""`rkllm-mqtt config`: check a configuration file, print its schema or a commented example."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("action", choices=("check", "schema", "example"), help="what to do")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what `check` reads")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the same")


def run(args: argparse.Namespace) -> int:
    """Carry the action out; return the exit status.

    Raises:
        ConfigError: `check` found a mistake.
        CommandFailed: Another action was given a file.
    """
    from rkllm_mqtt.commands.failure import EXIT_USAGE, CommandFailed
    from rkllm_mqtt.config import find_config, load_config
    from rkllm_mqtt.config.example import build_example, build_schema
    from rkllm_mqtt.config.folder import read_listing

    if args.file is not None and args.action != "check":
        raise CommandFailed(f"`config {args.action}` reads no file.", "It prints.", EXIT_USAGE)
    if args.action == "schema":
        print(build_schema(), end="")
    elif args.action == "example":
        print(build_example(), end="")
    else:
        path = args.file or args.config or find_config()
        config = load_config(path)
        models = ", ".join(entry.id for entry in read_listing(config).entries)
        models = models or "the simulator's demonstration model"
        print(f"{path or 'no file: the defaults'}: fine")
        print(f"  node {config.node} on {config.mqtt.host}, models: {models}")
    return 0
