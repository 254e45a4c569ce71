"""The broker of a bench run or a soak: a real mosquitto on a free loopback port."""

import asyncio
import getpass
import shutil
import socket
from pathlib import Path

from bench.child import Child
from bench.wire import HOST, LIMIT_S

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
_CONFIG = """\
listener {port} {host}
user {user}
allow_anonymous true
persistence_location {folder}/
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
"""
IN_MEMORY = """\
persistence false
# What is measured is the daemon, not the broker's default of 1,000 queued messages (0: no limit) and 20
# under way.
max_queued_messages 0
max_inflight_messages 100
"""


def find_mosquitto() -> str | None:
    """Return the path of mosquitto, which is often outside a user's PATH."""
    found = shutil.which("mosquitto")
    return found or next((f"{p}/mosquitto" for p in _PLACES if Path(p, "mosquitto").is_file()), None)


class Broker:
    """A mosquitto on one port; `start` it as often as it was stopped."""

    def __init__(self, folder: Path, config: str = IN_MEMORY) -> None:
        """Choose a free port.

        Args:
            folder: Takes its configuration, its log and what it keeps.
            config: What its configuration says beyond the listener.
        """
        self._folder = folder
        self._config = config
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
            raise FileNotFoundError("this needs mosquitto: `apt install mosquitto`")
        if self._child is not None and not self._child.has_ended:
            return
        config = self._folder / "mosquitto.conf"
        common = _CONFIG.format(port=self.port, host=HOST, user=getpass.getuser(), folder=self._folder)
        config.write_text(common + self._config)
        self._child = Child([program, "-c", str(config)], self._folder / "mosquitto.log", {})
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + LIMIT_S
        while not self._listens():
            if self._child.has_ended or loop.time() > ends_at:
                raise ConnectionError(f"mosquitto does not listen: {self._child.last_words()}")
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """End it in order."""
        if self._child is not None:
            self._child.stop()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0
