"""The broker of a soak: a mosquitto that is restarted on its port, with what it has kept."""

import asyncio
import getpass
import socket
from pathlib import Path

from bench.broker import find_mosquitto
from bench.child import Child
from bench.wire import HOST, LIMIT_S

_CONFIG = """\
listener {port} {host}
user {user}
allow_anonymous true
persistence true
persistence_location {folder}/
max_queued_messages 100000
set_tcp_nodelay true
log_dest stderr
log_type error
"""


class Broker:
    """A mosquitto on one port; `start` it as often as it was stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: Child | None = None
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port: int = free.getsockname()[1]

    async def start(self) -> None:
        """Start it if it does not run, and wait until it listens.

        Raises:
            FileNotFoundError: mosquitto is not installed.
            ConnectionError: It did not come up; the message has its last words.
        """
        program = find_mosquitto()
        if program is None:
            raise FileNotFoundError("the soak needs mosquitto: `apt install mosquitto`")
        if self._child is not None and not self._child.has_ended:
            return
        config = self._folder / "mosquitto.conf"
        config.write_text(
            _CONFIG.format(port=self.port, host=HOST, user=getpass.getuser(), folder=self._folder)
        )
        self._child = Child([program, "-c", str(config)], self._folder / "mosquitto.log", {})
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + LIMIT_S
        while not self._listens():
            if self._child.has_ended or loop.time() > ends_at:
                raise ConnectionError(f"mosquitto does not listen: {self._child.last_words()}")
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        """End it in order."""
        if self._child is not None:
            self._child.stop()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0
