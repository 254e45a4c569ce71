"""A real mosquitto on a free loopback port."""

import select
import shutil
import signal
import socket
import subprocess
from pathlib import Path

MOSQUITTO = (
    shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") or "mosquitto"
)


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Broker:
    """One mosquitto process; can be stopped, killed and started again on the same port."""

    def __init__(
        self,
        folder: Path,
        *,
        persistence: bool = False,
        saved_every: int = 1,
        max_queued: int = 20_000,
        extra: str = "",
    ) -> None:
        """Write the configuration.

        Args:
            folder: Takes its files.
            persistence: It has a file, written whole after every `saved_every` changes.
            saved_every: 1 loses nothing in a crash, and makes 20 messages a second out of 20,000.
            max_queued: Messages kept for a client that is away.
            extra: More lines of configuration.
        """
        self.port = free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            f"max_queued_messages {max_queued}",
            "set_tcp_nodelay true",
            "user root",
            f"persistence {'true' if persistence else 'false'}",
            f"persistence_location {folder}/",
            f"autosave_interval {saved_every}",
            "autosave_on_changes true",
            extra,
        ]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(
                [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        while True:
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "mosquitto.log").read_text())
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except ConnectionRefusedError:
                select.select([], [], [], 0.003)
            else:
                return

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process with a signal and wait for it."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None
