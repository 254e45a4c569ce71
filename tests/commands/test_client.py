"""Finding the broker and the daemon, and staying with them, over a real broker."""

import json
import os
import select
import signal
import subprocess
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from rkllm_mqtt.commands import client_address
from rkllm_mqtt.commands.client import Asking, encode, find_node, new_id, outcome_of, own_name, read_status
from rkllm_mqtt.commands.client_address import (
    BrokerAddress,
    TlsFiles,
    address_from,
    address_from_config,
    address_from_url,
)
from rkllm_mqtt.commands.client_connection import Connection, ConnectionLost
from rkllm_mqtt.commands.demo_note import DemoNote, note_path, read_note, remove_note, started_of, write_note
from rkllm_mqtt.commands.failure import BrokerUnreachable, CommandFailed, DaemonUnavailable
from rkllm_mqtt.commands.interruption import Interruption
from rkllm_mqtt.config import parse_config
from rkllm_mqtt.core.topics import Mailbox


def options(*words: str) -> Namespace:
    parser = ArgumentParser()
    client_address.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def connection(broker: int, base: str) -> Iterator[Connection]:
    with Connection(BrokerAddress(port=broker, base=base)) as opened:
        opened.open()
        yield opened


def own_note(port: int) -> DemoNote:
    return DemoNote("127.0.0.1", port, "rkllm", "demo", os.getpid(), started_of(os.getpid()))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://h:1884", BrokerAddress(host="h", port=1884)),
        ("h:1884", BrokerAddress(host="h", port=1884)),
        ("mqtts://u:p%40ss@h", BrokerAddress(host="h", username="u", password="p@ss", tls=TlsFiles())),
        ("ws://h/x", BrokerAddress(host="h", transport="websockets", path="/x")),
    ],
)
def test_a_url_gives_the_address(url: str, expected: BrokerAddress) -> None:
    found = address_from_url(url)
    for name in ("host", "port", "username", "password", "tls", "transport"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize("url", ["http://h", "mqtt://", "mqtt://u:secret@h:99999"])
def test_a_wrong_url_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(CommandFailed) as failure:
        address_from_url(url)
    assert failure.value.status == 78
    assert "secret" not in str(failure.value)


def test_the_usual_port_follows_from_transport_and_tls() -> None:
    assert BrokerAddress().effective_port == 1883
    assert BrokerAddress(tls=TlsFiles()).effective_port == 8883
    assert BrokerAddress(transport="websockets").effective_port == 80
    assert BrokerAddress(transport="websockets", tls=TlsFiles()).effective_port == 443


def test_options_win_over_url_over_config_over_demo(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("node: board\nmqtt: {host: fromfile, port: 1}\n")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "RKLLM_MQTT_CONFIG": str(config)}
    write_note(own_note(2), note_path(environ))
    assert str(address_from(options("--port", "9"), environ)) == "127.0.0.1:9"
    assert address_from(options(), environ | {"RKLLM_MQTT_URL": "mqtt://url"}).host == "url"
    found = address_from(options(), environ)
    assert (found.host, found.node) == ("fromfile", "board")
    del environ["RKLLM_MQTT_CONFIG"]
    found = address_from(options(), environ)
    assert (found.effective_port, found.node) == (2, "demo")
    found = address_from(options("--config", str(config), "--host", "other", "--node", "n"), environ)
    assert (found.host, found.effective_port, found.node) == ("other", 1, "n")


def test_a_secret_never_shows_in_an_address(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("secret\n")
    address = address_from(
        options("--host", "h", "--username", "u", "--password-file", str(tmp_path / "p")), {}
    )
    assert address.password == "secret"
    assert "secret" not in f"{address} {address!r}"


def test_a_demos_note_counts_while_its_process_lives(tmp_path: Path) -> None:
    path = tmp_path / "x" / "demo.json"
    write_note(own_note(5), path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_note(path) == own_note(5)
    path.write_text(
        json.dumps({"host": "h", "port": 1, "base": "b", "node": "n", "pid": os.getpid(), "started": "0"})
    )
    assert read_note(path) is None  # the pid is in use, but by another process
    path.write_text("{")
    assert read_note(path) is None


def test_a_note_is_removed_by_its_own_process_only(tmp_path: Path) -> None:
    path = write_note(own_note(5), tmp_path / "demo.json")
    remove_note(os.getpid() + 1, path)
    assert path.exists()
    remove_note(os.getpid(), path)
    assert not path.exists()


def test_a_linked_note_is_not_followed(tmp_path: Path) -> None:
    write_note(own_note(5), tmp_path / "real.json")
    (tmp_path / "demo.json").symlink_to(tmp_path / "real.json")
    assert read_note(tmp_path / "demo.json") is None


def test_the_client_name_is_the_broker_user_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "jo ann")
    assert own_name(BrokerAddress(username="kitchen")) == "kitchen"
    assert own_name(BrokerAddress(username="a/b")) == "cli-jo-ann"


def test_the_only_daemon_online_is_found(connection: Connection, daemon: Any, broker: int, base: str) -> None:
    address = BrokerAddress(port=broker, base=base)
    assert find_node(connection, address) == "board"
    assert read_status(connection, address, "board") == "online"
    daemon.retain("status", "offline")
    assert find_node(connection, address) == "board"


def test_several_daemons_are_listed(connection: Connection, daemon: Any, broker: int, base: str) -> None:
    connection.publish(f"{base}/attic/status", b"online")
    daemon._mqtt.publish(f"{base}/attic/status", "online", qos=1, retain=True).wait_for_publish(20)
    with pytest.raises(DaemonUnavailable, match=r"online at .*: attic, board") as failure:
        find_node(connection, BrokerAddress(port=broker, base=base))
    assert "--node" in failure.value.hint


def test_no_daemon_is_said_with_the_topic(connection: Connection, broker: int, base: str) -> None:
    with pytest.raises(DaemonUnavailable, match=f"{base}/\\+/status"):
        find_node(connection, BrokerAddress(port=broker, base=base))


def test_a_broker_that_speaks_only_3_1_1_is_spoken_with(broker: int, base: str) -> None:
    with Connection(BrokerAddress(port=broker, base=base, protocol="3.1.1")) as connection:
        connection.open()
        assert connection.protocol == "3.1.1"
        connection.subscribe([f"{base}/x"])
        connection.publish(f"{base}/x", b"1", content_type="text/plain")
        assert [message.payload for message in connection.pump(20)] == [b"1"]


def test_a_wrong_password_is_said_by_the_broker(brokers: Any) -> None:
    port = brokers.start(f"allow_anonymous false\npassword_file {brokers.password_file('me')}\n")
    connection = Connection(BrokerAddress(port=port, username="me", password="wrong"))
    with pytest.raises(BrokerUnreachable, match="refuses us: Not authorized") as failure:
        connection.open()
    assert "--password-file" in failure.value.hint
    assert "wrong" not in str(failure.value)
    with Connection(BrokerAddress(port=port, username="me", password="secret")) as connection:
        connection.open()


def test_an_access_list_that_forbids_is_named(brokers: Any) -> None:
    access = brokers.folder / "acl"
    access.write_text("topic read rkllm/+/status\n")
    port = brokers.start(f"allow_anonymous true\nacl_file {access}\n")
    with Connection(BrokerAddress(port=port)) as connection:
        connection.open()
        with pytest.raises(CommandFailed, match="does not let us publish on rkllm/n/client/me/request"):
            connection.publish("rkllm/n/client/me/request", b"{}")


def test_a_broker_whose_certificate_is_not_trusted_is_refused(brokers: Any) -> None:
    names = {kind: str(brokers.folder / f"{kind}.pem") for kind in ("key", "certificate")}
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", names["key"], "-out", names["certificate"]]
    subprocess.run([*line.split(), *files], check=True, capture_output=True)
    tls = f"certfile {names['certificate']}\nkeyfile {names['key']}\n"
    port = brokers.start(tls + "allow_anonymous true\n")
    with pytest.raises(BrokerUnreachable, match=r"TLS: self.signed certificate"):
        Connection(BrokerAddress(port=port, tls=TlsFiles())).open()
    trusted = TlsFiles(ca_file=brokers.folder / "certificate.pem")
    with Connection(BrokerAddress(port=port, tls=trusted)) as connection:
        connection.open()
        connection.subscribe(["a/#"])
        connection.publish("a/b", b"x" * 200_000)
        received: list[bytes] = []
        while not received:
            received += [message.payload for message in connection.pump(20)]
        assert len(received[0]) == 200_000


def test_a_lost_connection_is_told_after_the_messages_before_it(brokers: Any) -> None:
    port = brokers.start("allow_anonymous true\n")
    with Connection(BrokerAddress(port=port)) as connection:
        connection.open()
        connection.subscribe(["a"])
        connection.publish("a", b"1")
        brokers.stop_last()
        with pytest.raises(ConnectionLost):
            connection.barrier()
        assert [message.payload for message in connection.pump(20)] == [b"1"]
        with pytest.raises(ConnectionLost):
            connection.pump(20)
        with pytest.raises(BrokerUnreachable, match="Connection refused"):
            connection.open()


def test_a_broker_that_restarts_does_not_lose_the_question(brokers: Any, base: str, request: Any) -> None:
    port = brokers.start("allow_anonymous true\n")
    responder_type = request.getfixturevalue("responder_type")
    first = responder_type(port, base)
    address = BrokerAddress(port=port, base=base)
    asking = Asking(Mailbox(base, "board", "me"), new_id(), encode({"prompt": "hi"}))
    accepted = threading.Event()
    first.answer = lambda asked: (first.accept(asked), accepted.set())
    with Connection(address) as connection, Interruption() as wake:
        connection.open()
        asking.begin(connection)
        assert accepted.wait(20)
        first.close()
        brokers.stop_last()
        brokers.start("allow_anonymous true\n", port)
        second = responder_type(port, base)
        finals = [outcome_of(step) for step in asking.steps(connection, wake) if outcome_of(step) is not None]
        second.close()
    assert finals[0] is not None
    assert finals[0]["text"] == "Hello from the board."
    assert [asked.payload for asked in first.requests] == [asked.payload for asked in second.requests]
    assert first.requests[0].id == second.requests[0].id


def test_a_signal_wakes_and_the_third_one_gets_out() -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background of a shell
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert select.select([interruption], [], [], 20)[0]
        interruption.clear()
        assert not select.select([interruption], [], [], 0)[0]
        assert (interruption.count, interruption.exit_status) == (1, 143)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_commands_have_the_user_that_the_configuration_names_for_them(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    text = "mqtt: {username: daemon, commands_username: cli, commands_password_file: %s}"
    address = address_from_config(parse_config(text % secret, "test", {}))
    assert (address.username, address.password) == ("cli", "hidden")
    with pytest.raises(CommandFailed, match=r"mqtt\.commands_password_file /none: No such file"):
        address_from_config(parse_config(text % "/none", "test", {}))
    bare = address_from_config(parse_config("mqtt: {username: daemon}", "test", {}))
    assert (bare.username, bare.password) == ("daemon", None)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_session_that_waits_for_another_client_is_left_alone(brokers: Any, protocol: str) -> None:
    port = brokers.start(
        f"allow_anonymous false\npassword_file {brokers.password_file('me')}\nuse_username_as_clientid true\n"
    )
    signed = BrokerAddress(port=port, username="me", password="secret", protocol=protocol)
    for _ in range(2):  # what a command leaves behind does not lock out the next one
        with Connection(signed) as connection:
            connection.open()
            connection.subscribe(["a/#"])
    owner = paho.Client(paho.CallbackAPIVersion.VERSION2, "owner", clean_session=False)
    owner.username_pw_set("me", "secret")
    owner.connect("127.0.0.1", port)
    received: list[bytes] = []
    subscribed: list[int] = []
    owner.on_subscribe = lambda *_: subscribed.append(1)
    owner.on_message = lambda _c, _u, message: received.append(message.payload)
    owner.on_connect = lambda *_: owner.subscribe("b/#", 1)
    while not subscribed:
        owner.loop()
    owner.disconnect()
    owner.loop()
    with Connection(signed) as connection, pytest.raises(CommandFailed, match="'me' is taken") as failure:
        connection.open()
    assert "commands_username" in failure.value.hint
    owner.on_connect = None
    owner.reconnect()
    owner.publish("b/1", b"kept", qos=1)
    while not received:
        owner.loop()
    assert received == [b"kept"]  # its subscription is there still
    owner.disconnect()
    owner.loop()
