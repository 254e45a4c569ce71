"""Choose, configure and start the demo's own broker: mosquitto where it is installed, else a Python one."""

import errno
import importlib.util
import os
import pwd
import shutil
import socket
import sys
from pathlib import Path

from rkllm_mqtt.commands.demo_child import Child
from rkllm_mqtt.commands.failure import EXIT_UNAVAILABLE, CommandFailed

HOST = "127.0.0.1"
EMBEDDED = "embedded broker"
"""Speaks MQTT 3.1.1 only, and is silent to MQTT 5, which takes ten seconds to find out."""
USUAL_PORT = 1883
FIRST_OTHER_PORT = 18830
_OTHER_PORTS = 100
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

_MOSQUITTO = """\
listener {port} {host}
allow_anonymous true
persistence true
persistence_location {folder}/
# The default of 1,000 drops prompts that mosquitto has already acknowledged.
max_queued_messages 10000
# Without it a round trip takes 44 ms instead of 0.2 ms.
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
"""


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto broker; it is often outside a user's PATH."""
    found = shutil.which("mosquitto")
    return found or next(
        (f"{place}/mosquitto" for place in _PLACES if Path(place, "mosquitto").is_file()), None
    )


def choose_port(wanted: int | None) -> int:
    """Return a free port on loopback: the wanted one, else 1883, else the first from 18830.

    Raises:
        CommandFailed: The wanted port is taken, or none is free.
    """
    if wanted is not None:
        if not _is_free(wanted):
            raise CommandFailed(f"Port {wanted} is taken.", "Without --port the demo finds a free one.")
        return wanted
    candidates: list[int] = [USUAL_PORT, *range(FIRST_OTHER_PORT, FIRST_OTHER_PORT + _OTHER_PORTS)]
    found = next((port for port in candidates if _is_free(port)), None)
    if found is not None:
        return found
    raise CommandFailed(f"No free port from {FIRST_OTHER_PORT} on.", "Name one with --port.")


def start_broker(kind: str, port: int, folder: Path) -> Child:
    """Start the broker; it takes connections a moment later.

    Args:
        kind: `mosquitto`, `embedded`, or `auto` for the first that is installed.
        port: Free port on loopback.
        folder: Where its configuration and its persistence go.

    Raises:
        CommandFailed: It is not installed.
    """
    mosquitto = find_mosquitto() if kind != "embedded" else None
    if mosquitto is not None:
        config = folder / "mosquitto.conf"
        text = _MOSQUITTO.format(port=port, host=HOST, folder=folder)
        if os.geteuid() == 0:
            # It would become the user `mosquitto`, who may not write into our folder.
            text += f"user {pwd.getpwuid(0).pw_name}\n"
        config.write_text(text, "utf-8")
        return Child("mosquitto", [mosquitto, "-c", str(config)])
    if kind == "mosquitto" or importlib.util.find_spec("amqtt") is None:
        raise CommandFailed(
            "No MQTT broker is installed.",
            "Install one: `sudo apt install mosquitto`, or `pip install 'rkllm-mqtt[demo]'`.",
            EXIT_UNAVAILABLE,
        )
    line = [sys.executable, "-P", "-m", "rkllm_mqtt.commands.demo_embedded", HOST, str(port)]
    return Child(EMBEDDED, line)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As a broker binds: a connection that was closed a moment ago does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as exc:
            if exc.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
