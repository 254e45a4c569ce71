"""Speak with the service manager that started us: systemd's notification socket and its watchdog.

Source: sd_notify(3), sd_watchdog_enabled(3): datagrams of `NAME=value` lines to the socket NOTIFY_SOCKET.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping

from msgspec import Struct

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What it puts into our environment; none of our children's business."""


class ServiceManager(Struct, frozen=True):
    """Who is told how we are; nobody when no service manager asked for it."""

    address: str | None = None
    """A socket's path, `\\0name` in the abstract namespace; None: nobody listens."""
    watchdog_s: float | None = None
    """We are ended when we say nothing for so long; None: never."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "ServiceManager":
        """Return the manager that this environment names."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address.startswith("@"):
            address = "\0" + address[1:]
        elif not address.startswith("/"):
            return cls()  # absent, or of a kind (vsock) that is for virtual machines
        return cls(address, _watchdog_s(environ))

    def tell(self, *assignments: str) -> bool:
        """Send `NAME=value` assignments in one datagram; return whether it was taken.

        Never blocks: a manager that does not read loses the message, and asks again by its own means.
        """
        if self.address is None:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(assignments).encode(), self.address)
            return True
        return False

    def ready(self) -> bool:
        """Say that the start, or a reload, is complete."""
        return self.tell("READY=1")

    def alive(self) -> bool:
        """Feed the watchdog."""
        return self.tell("WATCHDOG=1")

    def status(self, line: str) -> bool:
        """Say in one line what we do."""
        return self.tell("STATUS=" + " ".join(line.split()))

    def reloading(self) -> bool:
        """Say that a reload, or a restart within our process, begins; `ready` ends it."""
        return self.tell(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def stopping(self, within_s: float) -> bool:
        """Say that we end by ourselves, at the latest after so long."""
        return self.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(within_s * 1_000_000)}")


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    pid = environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None  # meant for another process of the service
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdecimal() and int(text) > 0 else None
