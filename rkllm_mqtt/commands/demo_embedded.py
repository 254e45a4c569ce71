"""The demo's broker in Python, for machines without mosquitto: `python -m ... HOST PORT` until SIGTERM."""

import asyncio
import logging
import signal
import sys


async def serve(host: str, port: int) -> None:
    """Serve MQTT 3.1.1 on one loopback port until SIGTERM or SIGINT."""
    from amqtt.broker import Broker

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    listener = {"type": "tcp", "bind": f"{host}:{port}"}
    anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker({"listeners": {"default": listener}, "plugins": anonymous})
    await broker.start()
    await stopped.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    # It calls every connection that a client just closes an error.
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
