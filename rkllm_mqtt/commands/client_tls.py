"""Encrypted connections of the commands."""

import socket
import ssl
from typing import Any

from rkllm_mqtt.commands.client_address import TlsFiles
from rkllm_mqtt.commands.failure import EXIT_CONFIG, CommandFailed


class _TlsContext(ssl.SSLContext):
    """Shakes hands while it wraps: paho leaves the socket open when its own handshake fails."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(sock, *args, **options)
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context that trusts and shows what the files say.

    Raises:
        CommandFailed: A file is missing or is not what it should be.
    """
    context = _TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if files.ca_file is not None:
            context.load_verify_locations(files.ca_file)
        else:
            context.load_default_certs()
        if files.certificate_file is not None:
            context.load_cert_chain(files.certificate_file, files.key_file, files.key_password)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise CommandFailed(
            f"The files of the TLS connection cannot be used: {reason}.", status=EXIT_CONFIG
        ) from exc
    if files.insecure:
        context.check_hostname = False
    return context
