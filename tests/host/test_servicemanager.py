"""The promise of `host/servicemanager.py`: real datagrams on the socket that systemd names, or silence."""

import os
import socket
import time
import uuid

import pytest

from rkllm_mqtt.host.servicemanager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    """A bound datagram socket and its name as systemd writes it."""
    name = str(tmp_path / "notify") if request.param == "path" else "\0" + uuid.uuid4().hex
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(10)
        yield sock, name.replace("\0", "@")


def test_every_message_is_one_datagram_of_assignments(listener):
    sock, name = listener
    manager = ServiceManager.from_environ({"NOTIFY_SOCKET": name})
    assert manager.ready()
    assert sock.recv(4096) == b"READY=1"
    assert manager.alive()
    assert sock.recv(4096) == b"WATCHDOG=1"
    assert manager.status("busy with qwen,\n 3 waiting")
    assert (
        sock.recv(4096) == b"STATUS=busy with qwen, 3 waiting"
    )  # one line: no assignment can be smuggled in
    assert manager.stopping(12.5)
    assert sock.recv(4096) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000"


def test_a_reload_tells_the_moment_of_its_beginning_on_the_monotonic_clock(listener):
    sock, name = listener
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert ServiceManager.from_environ({"NOTIFY_SOCKET": name}).reloading()
    first, second = sock.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert (
        before
        <= int(second.partition("=")[2]) / 1e6 + 1e-6
        <= time.clock_gettime(time.CLOCK_MONOTONIC) + 1e-6
    )


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_socket_nobody_is_told_and_nothing_fails(environ):
    manager = ServiceManager.from_environ({**environ, "WATCHDOG_USEC": "1000000"})
    assert manager == ServiceManager()
    assert not manager.ready()
    assert manager.watchdog_s is None


def test_a_manager_that_is_gone_or_does_not_read_costs_neither_an_error_nor_time(tmp_path):
    name = str(tmp_path / "notify")
    manager = ServiceManager.from_environ({"NOTIFY_SOCKET": name})
    assert not manager.alive()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        taken = 0
        while manager.alive():  # ends when the socket's queue is full; a blocking send would never return
            taken += 1
        assert taken > 0


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_the_one_that_is_meant_for_this_process(variables, seconds):
    manager = ServiceManager.from_environ({"NOTIFY_SOCKET": "/run/notify", **variables})
    assert manager.watchdog_s == seconds
