"""Open the byte stream to the broker: name, TCP or unix socket, TLS, websocket.

paho would block in all of it, with another time limit for each step, and leak the socket of a failed one.
Here everything waits on the event loop under the caller's time limit and is undone when it is cancelled; only
the resolver, the certificate files and paho's websocket handshake need a thread.
"""

import asyncio
import contextlib
import socket
from functools import partial

from paho.mqtt.client import _WebsocketWrapper

from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.mqtt.link import Link, Stream

_PORTS = {("tcp", False): 1883, ("tcp", True): 8883, ("websockets", False): 80, ("websockets", True): 443}


def port_of(config: MqttConfig) -> int:
    """Return the configured port, or the usual one of the transport; 0 for a unix socket."""
    if config.port is not None:
        return config.port
    return _PORTS.get((config.transport, config.tls is not None), 0)


def address_of(config: MqttConfig) -> str:
    """Return how a person would name the broker, without user name or password."""
    if config.transport == "unix":
        return str(config.socket_path)
    return f"{config.host}:{port_of(config)}"


async def dial(config: MqttConfig) -> Link:
    """Return a link to the broker, before any MQTT is spoken.

    Raises:
        OSError: The name, the network, the certificate files or the broker say no (also ssl.SSLError).
        TimeoutError: It took longer than `connect_timeout_s`; this is an OSError too.
    """
    async with asyncio.timeout(config.connect_timeout_s):
        sock = await _connect(config)
        try:
            stream: Stream = sock
            if config.tls is not None and config.transport != "unix":
                # Only here: `ssl` takes 4 MB, which a daemon beside its broker does without.
                from rkllm_mqtt.mqtt import tls

                context = await asyncio.to_thread(tls.context_of, config.tls, config)
                # wrap_socket takes the descriptor over: from here on, only the wrapped socket closes it.
                sock = context.wrap_socket(sock, server_hostname=config.host, do_handshake_on_connect=False)
                await tls.shake_hands(sock)
                stream = sock
            if config.transport == "websockets":
                stream = await _upgrade(sock, config)
        except BaseException:
            sock.close()
            raise
    return Link(stream)


async def _connect(config: MqttConfig) -> socket.socket:
    if config.transport == "unix":
        return await _connected(socket.AF_UNIX, str(config.socket_path))
    loop = asyncio.get_running_loop()
    # As bytes a name is taken as it is; else Python loads its tables for names that are not ASCII, 1 MB.
    host = config.host.encode() if config.host.isascii() else config.host
    found = await loop.getaddrinfo(host, port_of(config), type=socket.SOCK_STREAM)
    for position, (family, _, _, _, address) in enumerate(found):
        # A black hole must not use up the time of the other addresses.
        share_s = config.connect_timeout_s / (len(found) - position)
        try:
            async with asyncio.timeout(share_s):
                return await _connected(family, address)
        except OSError:
            if position == len(found) - 1:
                raise
    raise OSError(f"{config.host} has no address")


async def _connected(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            # With Nagle on one side a QoS 1 round trip takes 44 ms instead of 0.2 ms.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)  # type: ignore[arg-type]  # of any family
    except BaseException:
        sock.close()
        raise
    return sock


async def _upgrade(sock: socket.socket, config: MqttConfig) -> Stream:
    """Return paho's websocket wrapper; its handshake blocks, so it has a thread and a timeout."""
    sock.settimeout(config.connect_timeout_s)
    shake_hands = partial(
        _WebsocketWrapper,
        socket=sock,
        host=config.host,
        port=port_of(config),
        is_ssl=config.tls is not None,
        path=config.websocket_path,
        extra_headers=None,
    )
    handshake = asyncio.get_running_loop().run_in_executor(None, shake_hands)
    try:
        wrapper = await asyncio.shield(handshake)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):  # the broker was faster
            sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, which sees the end of the stream
        await asyncio.wait({handshake})
        handshake.exception()
        raise
    sock.setblocking(False)
    return wrapper
