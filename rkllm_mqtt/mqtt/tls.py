"""TLS to the broker: the context of a connection, and its handshake on the event loop."""

import asyncio
import ssl

from rkllm_mqtt.config import MqttConfig, TlsConfig


def context_of(tls: TlsConfig, config: MqttConfig) -> ssl.SSLContext:
    """Read the certificates, anew for each connection: they are renewed while the daemon runs.

    Raises:
        OSError: A file cannot be read (the error names it), or is not what it should be.
    """
    for path in (tls.ca_file, tls.certificate_file, tls.key_file):
        if path is not None:
            path.open("rb").close()  # an error that names the file; OpenSSL's does not
    try:
        context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    except ssl.SSLError as exc:
        raise ssl.SSLError(f"there is no certificate in the PEM file {tls.ca_file} (tls.ca_file)") from exc
    if tls.certificate_file is not None:
        password = config.key_password.get_secret_value() if config.key_password is not None else ""
        try:
            # A callable, and never None: OpenSSL would ask at the terminal.
            context.load_cert_chain(tls.certificate_file, tls.key_file, lambda: password)
        except ssl.SSLError as exc:
            raise ssl.SSLError(
                "tls.certificate_file and tls.key_file are no certificate and its key in PEM form, or"
                " tls.key_password_file is wrong"
            ) from exc
    if tls.insecure:
        context.check_hostname = False
    return context


async def shake_hands(sock: ssl.SSLSocket) -> None:
    """Shake hands on a socket that does not block.

    Raises:
        OSError: The broker refuses, or its certificate is not trusted.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            watch, leave = loop.add_reader, loop.remove_reader
        except ssl.SSLWantWriteError:
            watch, leave = loop.add_writer, loop.remove_writer
        else:
            return
        ready = loop.create_future()
        watch(sock, _wake, ready)
        try:
            await ready
        finally:
            leave(sock)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
