"""The doctor's questions to real brokers."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt import publish
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from rkllm_mqtt.commands.doctoring.broker import check_broker, configured_limit
from rkllm_mqtt.commands.doctoring.broker_link import BrokerLink
from rkllm_mqtt.commands.doctoring.broker_probe import BrokerFacts, probe_broker
from rkllm_mqtt.commands.doctoring.finding import Finding, Level
from rkllm_mqtt.commands.doctoring.journal import Use, use_of
from rkllm_mqtt.commands.doctoring.subject import Subject
from rkllm_mqtt.config import Config, parse_config
from rkllm_mqtt.host.npu import read_board
from rkllm_mqtt.store.lock import JournalLock

ACL = """
user daemon
topic readwrite rkllm/kitchen/#
topic read $SYS/broker/version
user deaf
topic write rkllm/kitchen/#
user mute
topic read rkllm/#
user narrow
topic read rkllm/kitchen/client/+/request/#
topic read rkllm/kitchen/client/+/cancel/#
topic write rkllm/kitchen/client/+/reply/#
topic readwrite rkllm/kitchen/status
"""
USERS = ("daemon", "deaf", "mute", "narrow")

StartBroker = Callable[[str], int]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Start mosquitto with extra configuration lines; it ends with the test."""
    mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    running: list[subprocess.Popen[str]] = []

    def start(lines: str) -> int:
        port = free_port()
        config = tmp_path / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\npersistence false\nlog_dest stderr\nuser root\n{lines}\n"
        )
        process = subprocess.Popen([mosquitto, "-c", str(config)], stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        assert any(" running" in line for line in process.stderr), "mosquitto did not start"
        return port

    yield start
    for process in running:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("broker") / "passwords"
    path.touch()
    for user in USERS:
        subprocess.run(["mosquitto_passwd", "-b", str(path), user, "secret"], check=True)
    return path


@pytest.fixture
def guarded(start_broker: StartBroker, tmp_path: Path, passwords: Path) -> StartBroker:
    """Start mosquitto with users and an access list; the password of each is `secret`."""

    def start(lines: str = "") -> int:
        acl = tmp_path / "acl"
        acl.write_text(ACL)
        return start_broker(f"allow_anonymous false\npassword_file {passwords}\nacl_file {acl}\n{lines}")

    return start


def config_for(
    port: int,
    user: str = "",
    password: str = "secret",
    extra: str = "",
    journal: str = "/none/j",
    timeout_s: int = 10,
) -> Config:
    environ = {"RKLLM_MQTT_USERNAME": user, "RKLLM_MQTT_PASSWORD": password} if user else {}
    mqtt = f"{{port: {port}, connect_timeout_s: {timeout_s}{extra}}}"
    return parse_config(f"node: kitchen\njournal: {{path: {journal}}}\nmqtt: {mqtt}\n", "test", environ)


def findings(
    config: Config, facts: BrokerFacts, root: Path = Path("/none"), *, demo: bool = False
) -> dict[str, Finding]:
    subject = Subject(config, root, None, True, demo, read_board(root), ())
    return {finding.check: finding for finding in check_broker(subject, facts, time.time())}


def examined(config: Config, **options: bool) -> dict[str, Finding]:
    return findings(config, probe_broker(config), **options)


def test_an_open_broker_grants_everything(start_broker: StartBroker) -> None:
    found = examined(config_for(start_broker("allow_anonymous true")))
    levels = {check: finding.level for check, finding in found.items()}
    assert levels == {
        "connection": Level.OK,
        "MQTT 5": Level.OK,
        "read requests": Level.OK,
        "write answers": Level.OK,
        "daemon": Level.OK,
        "queued prompts": Level.WARN,
    }
    assert "mosquitto version 2" in found["queued prompts"].sentence


def test_a_fitting_access_list_grants_everything(guarded: StartBroker) -> None:
    found = examined(config_for(guarded(""), "daemon"))
    assert found["read requests"].level is Level.OK
    assert found["write answers"].level is Level.OK


def test_a_user_who_may_not_read_requests_is_found(guarded: StartBroker) -> None:
    found = examined(config_for(guarded(""), "deaf"))
    assert found["read requests"].level is Level.FAIL
    assert "topic readwrite rkllm/kitchen/#" in found["read requests"].advice


def test_a_user_who_may_not_write_answers_is_found(guarded: StartBroker) -> None:
    found = examined(config_for(guarded(""), "mute"))
    assert found["write answers"].level is Level.FAIL
    assert "status" in found["write answers"].sentence
    assert "reply" in found["write answers"].sentence


def test_a_daemon_that_may_not_send_requests_itself_is_no_failure(guarded: StartBroker) -> None:
    found = examined(config_for(guarded(""), "narrow"))
    assert found["read requests"].level is Level.SKIPPED
    assert found["write answers"].level is Level.OK


def test_a_wrong_password_is_told_from_a_closed_port(guarded: StartBroker) -> None:
    refused = examined(config_for(guarded(""), "daemon", "wrong"))["connection"]
    assert refused.level is Level.FAIL
    assert "refuses us" in refused.sentence
    assert "password_file" in refused.advice
    assert "wrong" not in refused.sentence
    closed = examined(config_for(free_port()))["connection"]
    assert closed.level is Level.FAIL
    assert "No broker answers" in closed.sentence


def test_a_missing_certificate_file_is_a_finding(tmp_path: Path) -> None:
    config = config_for(free_port(), extra=f", tls: {{ca_file: {tmp_path}/none.pem}}")
    assert examined(config)["connection"].level is Level.FAIL


def test_tls_is_checked_with_the_configured_authority(start_broker: StartBroker, tmp_path: Path) -> None:
    certificate, key = tmp_path / "broker.pem", tmp_path / "broker.key"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=broker -addext subjectAltName=IP:127.0.0.1"
    paths = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words.split(), *paths], check=True, capture_output=True)
    port = start_broker(f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}")
    trusted = examined(config_for(port, extra=f", tls: {{ca_file: {certificate}}}"))
    assert trusted["connection"].level is Level.OK
    unknown = examined(config_for(port, extra=", tls: {}"))["connection"]
    assert unknown.level is Level.FAIL
    assert "ca_file" in unknown.advice


def test_mqtt_3_1_1_alone_is_a_warning(tmp_path: Path) -> None:
    port = free_port()
    script = (
        "import asyncio, sys\n"
        "from amqtt.broker import Broker\n"
        "async def main():\n"
        "    listeners = {'default': {'type': 'tcp', 'bind': '127.0.0.1:' + sys.argv[1]}}\n"
        "    plugins = {'amqtt.plugins.authentication.AnonymousAuthPlugin': {'allow_anonymous': True}}\n"
        "    broker = Broker({'listeners': listeners, 'plugins': plugins})\n"
        "    await broker.start()\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.read)\n"
        "    await broker.shutdown()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline() == b"ready\n"
        found = examined(config_for(port, timeout_s=3))
    assert found["connection"].level is Level.OK
    assert found["MQTT 5"].level is Level.WARN
    assert found["write answers"].level is Level.SKIPPED


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_no_session_is_left_behind(start_broker: StartBroker, protocol: str) -> None:
    config = config_for(start_broker("allow_anonymous true"), extra=f", protocol: '{protocol}'")
    link = BrokerLink(config.mqtt, protocol)
    link.open()
    link.subscribe(["rkllm/#"], 5)
    link.close()
    again = BrokerLink(config.mqtt, protocol)
    again._client_id = link._client_id
    again._client = again._build(clean=False)
    again.open()
    assert not again.taken_for_daemon
    again.close()


def test_being_taken_for_the_daemon_loses_none_of_its_prompts(guarded: StartBroker) -> None:
    port = guarded("use_username_as_clientid true")
    daemon = SleepingDaemon(port)
    daemon.visit(subscribe=True)
    send(port, "before")
    found = examined(config_for(port, "daemon"))
    send(port, "after")
    assert found["user of the commands"].level is Level.WARN
    assert found["write answers"].level is Level.OK
    assert set(found) == {"connection", "MQTT 5", "user of the commands", "write answers"}
    daemon.visit(subscribe=False)
    assert daemon.session_present
    assert daemon.received == [b"before", b"after"]


def send(port: int, prompt: str) -> None:
    sender = {"username": "deaf", "password": "secret"}
    topic = "rkllm/kitchen/client/me/request"
    publish.single(topic, prompt, qos=1, port=port, auth=sender, protocol=MQTTProtocolVersion.MQTTv5)


class SleepingDaemon:
    """A client of the user `daemon` that connects for a moment and keeps its session."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.received: list[bytes] = []
        self.session_present = False

    def visit(self, *, subscribe: bool) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, "daemon", protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set("daemon", "secret")
        done: list[str] = []

        def on_connect(_c: object, _u: object, flags: paho.ConnectFlags, _r: object, _p: object) -> None:
            self.session_present = flags.session_present
            if subscribe:
                client.subscribe("rkllm/kitchen/client/+/request/#", 1)

        def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
            self.received.append(message.payload)
            if message.payload == b"after":
                done.append("message")

        client.on_connect = on_connect
        client.on_message = on_message
        client.on_subscribe = lambda *_: done.append("subscribed")
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 600
        client.connect("127.0.0.1", self.port, clean_start=False, properties=properties)
        end = time.monotonic() + 10
        while not done and time.monotonic() < end:
            client.loop(0.1)
        client.disconnect()
        client.loop(0.1)


def online(health: str) -> BrokerFacts:
    import json

    return BrokerFacts(protocol="5", status="online", health=json.loads(health), request_arrived=True)


def test_a_living_daemon_of_this_computer_is_fine(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    lock = JournalLock(journal)
    lock.take()
    try:
        assert use_of(journal) is Use.HELD
        config = config_for(1883, journal=str(journal))
        found = findings(config, online(f'{{"at": {time.time()}, "status": "healthy"}}'))["daemon"]
        assert (found.level, "healthy" in found.sentence) == (Level.OK, True)
        reasons = '[{"message": "hot", "hint": "cool it"}]'
        sick = f'{{"at": {time.time()}, "status": "unhealthy", "reasons": {reasons}}}'
        found = findings(config, online(sick))["daemon"]
        assert (found.level, found.advice) == (Level.WARN, "cool it")
        assert "hot" in found.sentence
    finally:
        lock.release()
    assert use_of(journal) is Use.FREE


def test_a_daemon_elsewhere_with_the_same_name_is_a_failure(tmp_path: Path) -> None:
    config = config_for(1883, journal=str(tmp_path / "journal.db"))
    facts = online(f'{{"at": {time.time()}, "status": "healthy"}}')
    assert findings(config, facts)["daemon"].level is Level.FAIL
    assert findings(config, facts, demo=True)["daemon"].level is Level.OK


@pytest.mark.parametrize("at", ['"2024-05-01T00:00:00Z"', "1714521600", '"yesterday"', "null", "true"])
def test_a_daemon_that_only_seems_online_is_a_warning(at: str) -> None:
    found = findings(config_for(1883), online(f'{{"at": {at}, "status": "healthy"}}'))["daemon"]
    assert found.level is Level.WARN
    assert "sign of life" in found.sentence


def test_the_retained_state_is_read_from_the_broker(start_broker: StartBroker) -> None:
    port = start_broker("allow_anonymous true")
    state = [("rkllm/kitchen/status", "online", 1, True), ("rkllm/kitchen/health", '{"at": 1}', 1, True)]
    publish.multiple(state, port=port, protocol=MQTTProtocolVersion.MQTTv5)
    facts = probe_broker(config_for(port))
    assert (facts.status, facts.health) == ("online", {"at": 1})


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max_queued_messages 20000\n", 20_000),
        ("listener 1883 0.0.0.0\nmax_queued_messages 0\n", 0),
        ("port 1884\nmax_queued_messages 20000\n", None),
        ("# max_queued_messages 20000\n", None),
        ("max_queued_messages many\n", None),
    ],
)
def test_the_queue_limit_is_read_from_mosquittos_own_files(
    tmp_path: Path, text: str, limit: int | None
) -> None:
    (tmp_path / "etc/mosquitto/conf.d").mkdir(parents=True)
    (tmp_path / "etc/mosquitto/mosquitto.conf").write_text("include_dir /etc/mosquitto/conf.d\n")
    (tmp_path / "etc/mosquitto/conf.d/own.conf").write_text(text)
    assert configured_limit(tmp_path, 1883) == limit


@pytest.mark.parametrize(
    ("limit", "level"), [("20000", Level.OK), ("0", Level.OK), ("1000", Level.WARN), (None, Level.WARN)]
)
def test_a_small_queue_limit_is_a_warning(tmp_path: Path, limit: str | None, level: Level) -> None:
    (tmp_path / "etc/mosquitto").mkdir(parents=True)
    if limit is not None:
        (tmp_path / "etc/mosquitto/mosquitto.conf").write_text(f"max_queued_messages {limit}\n")
    facts = BrokerFacts(protocol="5", broker_version="mosquitto version 2.0.11")
    assert findings(config_for(1883), facts, tmp_path)["queued prompts"].level is level


def test_other_brokers_and_small_packets_are_told(tmp_path: Path) -> None:
    facts = BrokerFacts(protocol="5", broker_version="EMQX 5", maximum_packet_bytes=1024)
    found = findings(config_for(1883), facts, tmp_path)
    assert found["queued prompts"].level is Level.SKIPPED
    assert found["message size"].level is Level.WARN
