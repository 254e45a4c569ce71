"""Why there is no connection, in words for a person and with the broker's reason code where it gave one."""

import os
import socket
import sys

from msgspec import Struct

UNSUPPORTED_VERSION = 0x84
SESSION_TAKEN_OVER = 0x8E


class Loss(Struct, frozen=True):
    """How a connection, or an attempt at one, ended."""

    reason: str
    code: int | None = None
    """MQTT 5 reason code of the broker's CONNACK or DISCONNECT; None when it gave none."""
    closed: bool = False
    """The stream just ended, without a word from the broker."""
    stalled: bool = False
    """The broker did not answer for as long as we waited."""


class LinkLost(Exception):
    """The connection ended while something was expected from the broker."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.reason)
        self.loss = loss


def reason_of(error: OSError) -> str:
    """Return what an operating system or TLS error means; never holds a secret."""
    ssl = sys.modules.get("ssl")  # where it was not needed, no error is of it
    if ssl is not None and isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    if ssl is not None and isinstance(error, ssl.SSLError):
        # OpenSSL's words have a reason, ours have none.
        reason = getattr(error, "reason", None)
        return f"TLS: {reason.lower().replace('_', ' ') if reason else error.args[-1]}"
    if isinstance(error, socket.gaierror):
        return f"host name not found: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    # Not error.strerror, in which asyncio tells of its call and the address.
    text = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return text[0].lower() + text[1:]
