"""A real mosquitto on the sample configuration of `config/`, with certificates and users made for it."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from live_broker import Broker

CONFIG = Path(__file__).parents[2] / "config"
USERS = ("rkllm-mqtt", "admin", "homeassistant", "rkllm-cli", "kitchen", "hall")


def password_of(user: str) -> str:
    """Return the password that `SampleBroker` gives to a user."""
    return f"pw-{user}"


class SampleBroker(Broker):
    """Mosquitto as a person would set it up by the comments of the sample: only paths and the port differ.

    The distribution's own file comes first and includes the sample, as on Debian.
    """

    def __init__(self, folder: Path, acl: Mapping[str, str] | None = None) -> None:
        """Write everything; `acl` replaces texts in the access list."""
        super().__init__(folder)
        self.ca_file = folder / "certs" / "ca.crt"
        _make_certificates(folder / "certs")
        for number, user in enumerate(USERS):
            _mosquitto_passwd(folder / "rkllm.passwd", user, create=number == 0)
        access = (CONFIG / "mosquitto.acl").read_text()
        for old, new in (acl or {}).items():
            assert old in access
            access = access.replace(old, new)
        (folder / "rkllm.acl").write_text(access)
        sample = (CONFIG / "mosquitto.conf").read_text()
        for old, new in (
            ("/etc/mosquitto/", f"{folder}/"),
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
        ):
            assert old in sample
            sample = sample.replace(old, new)
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "rkllm.conf").write_text(sample)
        distribution = [
            "user root",  # the tests' folders are closed to mosquitto's own user
            "persistence true",
            f"persistence_location {folder}/",
            f"include_dir {folder}/conf.d",
        ]
        (folder / "mosquitto.conf").write_text("\n".join(distribution) + "\n")


def _mosquitto_passwd(file: Path, user: str, *, create: bool) -> None:
    program = shutil.which("mosquitto_passwd") or "mosquitto_passwd"
    options = ["-c"] if create else []
    subprocess.run([program, *options, "-b", file, user, password_of(user)], check=True, capture_output=True)


def _make_certificates(folder: Path) -> None:
    """Make an authority and a certificate for localhost that it has signed."""
    folder.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    ca = ["-x509", "-days", "2", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.crt"]
    server = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    signed = ["-x509", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key"]
    for options in (ca, [*server, *signed, "-keyout", "server.key", "-out", "server.crt"]):
        subprocess.run(["openssl", "req", *key, *options], cwd=folder, check=True, capture_output=True)
