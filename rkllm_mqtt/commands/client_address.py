"""Find out which broker and which daemon a command speaks with, from options, environment and files.

The first that says something wins: --host and --port, --config, RKLLM_MQTT_URL, RKLLM_MQTT_CONFIG,
the demo of this user that runs now, a configuration file in its usual place, 127.0.0.1.
"""

import os
import urllib.parse
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.commands.demo_note import DemoNote, note_path, read_note
from rkllm_mqtt.commands.failure import EXIT_CONFIG, CommandFailed

if TYPE_CHECKING:
    from rkllm_mqtt.config import Config

Transport = Literal["tcp", "websockets", "unix"]
Protocol = Literal["auto", "5", "3.1.1"]

_SCHEMES: Mapping[str, tuple[Transport, bool]] = {
    "mqtt": ("tcp", False),
    "mqtts": ("tcp", True),
    "ws": ("websockets", False),
    "wss": ("websockets", True),
}


class TlsFiles(Struct, frozen=True):
    """An encrypted connection; None is the system's default."""

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = None
    insecure: bool = False
    """Do not check the broker's host name."""


class BrokerAddress(Struct, frozen=True):
    """Where the broker is, how we sign in, and which daemon we mean."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None is the usual one: 1883, 8883 with TLS, 80 or 443 with websockets."""
    transport: Transport = "tcp"
    path: str = "/mqtt"
    """Of the URL with websockets; of the socket with `unix`."""
    username: str | None = None
    password: str | None = None
    tls: TlsFiles | None = None
    protocol: Protocol = "auto"
    base: str = "rkllm"
    node: str | None = None
    """None: ask the broker which nodes there are."""
    timeout_s: float = 10.0
    """Longest wait for a connection."""

    @property
    def effective_port(self) -> int:
        """Return the port, the usual one when none is given."""
        if self.port is not None:
            return self.port
        if self.transport == "websockets":
            return 443 if self.tls else 80
        return 8883 if self.tls else 1883

    def __str__(self) -> str:
        """Return `host:port` or the socket's path; never a secret."""
        if self.transport == "unix":
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.effective_port}"

    def __repr__(self) -> str:
        return f"BrokerAddress({self})"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that `address_from` reads."""
    group = parser.add_argument_group(
        "broker",
        "Without these: RKLLM_MQTT_URL (mqtt://user:password@host:1883), the file named\n"
        "  by RKLLM_MQTT_CONFIG, a running demo, ./rkllm-mqtt.yaml,\n"
        "  /etc/rkllm-mqtt/rkllm-mqtt.yaml, else 127.0.0.1.",
    )
    group.add_argument(
        "--config", type=Path, metavar="FILE", help="take the broker from a configuration file"
    )
    group.add_argument("--host", metavar="NAME", help="host name or address of the broker")
    group.add_argument("--port", type=parse_port, metavar="N", help="port of the broker")
    group.add_argument("--username", metavar="NAME", help="user name at the broker")
    group.add_argument("--password-file", type=Path, metavar="FILE", help="file that holds the password")
    group.add_argument("--node", metavar="NAME", help="which daemon, when several are online")
    group.add_argument("--base", metavar="WORD", help="first topic level (default: rkllm)")


def address_from(args: Namespace, environ: Mapping[str, str] = os.environ) -> BrokerAddress:
    """Return where to connect.

    Raises:
        ConfigError: The configuration file cannot be used.
        CommandFailed: The URL or the password file cannot be used.
    """
    address = _from_surroundings(args, environ)
    if args.host is not None:
        transport: Transport = "tcp" if address.transport == "unix" else address.transport
        address = replace(address, host=args.host, transport=transport)
    if args.port is not None:
        address = replace(address, port=args.port)
    if args.username is not None:
        address = replace(address, username=args.username, password=None)
    if args.password_file is not None:
        address = replace(address, password=_secret(args.password_file))
    if args.node is not None:
        address = replace(address, node=args.node)
    if args.base is not None:
        address = replace(address, base=args.base)
    return address


def _from_surroundings(args: Namespace, environ: Mapping[str, str]) -> BrokerAddress:
    named = environ.get("RKLLM_MQTT_CONFIG")
    if args.config is not None:
        return _from_file(args.config, environ)
    if args.host is not None or args.port is not None:
        return BrokerAddress(
            username=environ.get("RKLLM_MQTT_USERNAME") or None,
            password=environ.get("RKLLM_MQTT_PASSWORD") or None,
        )
    if environ.get("RKLLM_MQTT_URL"):
        return address_from_url(environ["RKLLM_MQTT_URL"])
    if named:
        return _from_file(Path(named), environ)
    demo = read_note(note_path(environ))
    if demo is not None:
        return _from_demo(demo)
    return _from_usual_place(environ)


def address_from_url(url: str) -> BrokerAddress:
    """Return what a URL such as `mqtts://user:secret@host:8883` says.

    Raises:
        CommandFailed: It is no MQTT URL. The message does not repeat it, as it may hold a password.
    """
    hint = (
        "It looks like mqtt://host:1883, mqtts://user:password@host:8883, ws://host/mqtt or wss://host/mqtt."
    )
    parts = urllib.parse.urlsplit(url if "://" in url else f"mqtt://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise CommandFailed("RKLLM_MQTT_URL holds no valid port.", hint, EXIT_CONFIG) from exc
    if parts.scheme not in _SCHEMES or not host:
        raise CommandFailed("RKLLM_MQTT_URL is no URL of a broker.", hint, EXIT_CONFIG)
    transport, encrypted = _SCHEMES[parts.scheme]
    return BrokerAddress(
        host=host,
        port=port,
        transport=transport,
        path=parts.path or "/mqtt",
        username=urllib.parse.unquote(parts.username) if parts.username else None,
        password=urllib.parse.unquote(parts.password) if parts.password else None,
        tls=TlsFiles() if encrypted else None,
    )


def _from_demo(note: DemoNote) -> BrokerAddress:
    protocol: Protocol = "3.1.1" if note.protocol == "3.1.1" else "auto"
    return BrokerAddress(host=note.host, port=note.port, base=note.base, node=note.node, protocol=protocol)


def _from_usual_place(environ: Mapping[str, str]) -> BrokerAddress:
    # Imported here: reading a configuration costs more time than everything else in this module.
    from rkllm_mqtt.config import find_config

    found = find_config(environ)
    return _from_file(found, environ) if found is not None else BrokerAddress()


def _from_file(path: Path, environ: Mapping[str, str]) -> BrokerAddress:
    from rkllm_mqtt.config import load_config

    return address_from_config(load_config(path, environ))


def address_from_config(config: "Config") -> BrokerAddress:
    """Return how the daemon of that configuration is reached, with the commands' own user if it names one.

    Raises:
        CommandFailed: The commands' password file cannot be read.
    """
    mqtt = config.mqtt
    tls = None
    if mqtt.tls is not None:
        tls = TlsFiles(
            ca_file=mqtt.tls.ca_file,
            certificate_file=mqtt.tls.certificate_file,
            key_file=mqtt.tls.key_file,
            key_password=mqtt.key_password.get_secret_value() if mqtt.key_password else None,
            insecure=mqtt.tls.insecure,
        )
    username, password = mqtt.username, mqtt.password.get_secret_value() if mqtt.password else None
    if mqtt.commands_username is not None:
        username = mqtt.commands_username
        file = mqtt.commands_password_file
        password = None if file is None else _secret(file, "mqtt.commands_password_file")
    return BrokerAddress(
        host=mqtt.host,
        port=mqtt.port,
        transport=mqtt.transport,
        path=str(mqtt.socket_path) if mqtt.transport == "unix" else mqtt.websocket_path,
        username=username,
        password=password,
        tls=tls,
        protocol=mqtt.protocol,
        base=config.base,
        node=config.node,
        timeout_s=mqtt.connect_timeout_s,
    )


def _secret(path: Path, name: str = "--password-file") -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "is not UTF-8 text"
        raise CommandFailed(f"{name} {path}: {reason}.", status=EXIT_CONFIG) from exc


def parse_port(text: str) -> int:
    """Return a TCP port from the command line.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ArgumentTypeError(f"{text!r} is no port; it is a number from 1 to 65535")
    return int(text)
