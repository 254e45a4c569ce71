"""`rkllm-mqtt run`: the daemon in the foreground, until SIGTERM or Ctrl-C."""

import argparse
import faulthandler
import gc
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

from rkllm_mqtt.absence import absent
from rkllm_mqtt.commands.failure import EXIT_FAILED, EXIT_JOURNAL
from rkllm_mqtt.core.errors import ConfigError

_OWN_HASHES = ("_md5", "_sha1", "_sha3", "_blake2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="overrides the file's"
    )


def run(args: argparse.Namespace) -> int:
    """Run the daemon; return the exit status.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    gc.disable()  # what imports make stays: to walk through it again and again is a tenth of the start
    with absent(*left_out(tls=True)):  # what is configured is not known yet
        from rkllm_mqtt.config import Config, LogConfig, load_config

    def read() -> Config:
        config = load_config(args.config)
        return config.model_copy(update={"log": LogConfig(level=args.log_level)} if args.log_level else {})

    # Before READY a hangup means nothing yet, and must not end us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A watchdog ends us by SIGABRT: where each thread was is all that can be learned then.
    faulthandler.enable()
    config = read()
    with absent(*left_out(tls=config.mqtt.tls is not None)):
        import asyncio

        from rkllm_mqtt.logs import configure_logging, get_logger
        from rkllm_mqtt.serving import serve
        from rkllm_mqtt.store.errors import StoreError

    gc.enable()
    configure_logging(config.log.level)
    try:
        restart = asyncio.run(serve(config, read))
    except StoreError as exc:
        print(f"rkllm-mqtt: {exc}", file=sys.stderr)
        if exc.hint:
            print(f"  {exc.hint}", file=sys.stderr)
        return EXIT_JOURNAL
    except ConfigError:
        raise
    except Exception:  # noqa: BLE001 - Python's own last words would quote values
        get_logger(__name__).exception("daemon_failed")
        return EXIT_FAILED
    if restart:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


def left_out(*, tls: bool) -> list[str]:
    """Return the modules that a daemon is to find absent when it begins.

    The standard library and paho use OpenSSL where it is, and do without it where it is not: 5 MB of memory
    that a daemon beside its broker has no use for. Some builds of Python leave the hash functions to it.
    """
    sha2 = find_spec("_sha2") or (find_spec("_sha256") and find_spec("_sha512"))
    has_hashes = sha2 is not None and all(map(find_spec, _OWN_HASHES))
    return [*(["_hashlib"] if has_hashes else []), *([] if tls else ["ssl"])]
