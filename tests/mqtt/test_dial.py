"""Every way to a broker, and a clear reason when it is barred."""

import asyncio
import socket
import subprocess

import pytest
from pydantic import SecretStr

from rkllm_mqtt.config import MqttConfig, TlsConfig
from rkllm_mqtt.mqtt.dial import address_of, dial, port_of
from rkllm_mqtt.mqtt.loss import reason_of

KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256"
SIGN = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
CERTIFICATES = f"""
openssl req -x509 {KEY} -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
openssl req -x509 {KEY} -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other
openssl req {KEY} -nodes -keyout server.key -out server.csr -subj /CN=localhost
openssl x509 -req -in server.csr {SIGN} -out server.pem -extfile names
openssl req {KEY} -passout pass:sesame -keyout our.key -out our.csr -subj /CN=us
openssl x509 -req -in our.csr {SIGN} -out our.pem
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    for command in CERTIFICATES.strip().splitlines():
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def tls_broker(certificates, mosquitto):
    def make(*further: str):
        files = f"cafile {certificates}/ca.pem\ncertfile {certificates}/server.pem\n"
        key = f"keyfile {certificates}/server.key\nallow_anonymous true\n"
        return mosquitto(files + key + "\n".join(further)).start()

    return make


def reason_of_failure(run, **settings) -> str:
    async def attempt():
        link = await dial(MqttConfig(**settings))
        link.close()

    with pytest.raises(OSError) as caught:  # noqa: PT011  # the reason is what the caller looks at
        run(attempt())
    return reason_of(caught.value)


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({}, 1883),
        ({"tls": TlsConfig()}, 8883),
        ({"transport": "websockets"}, 80),
        ({"transport": "websockets", "tls": TlsConfig()}, 443),
        ({"port": 99, "tls": TlsConfig()}, 99),
    ],
)
def test_each_transport_has_its_usual_port(settings, port):
    assert port_of(MqttConfig(**settings)) == port


def test_the_address_holds_no_secret():
    config = MqttConfig(host="broker", username="me", password=SecretStr("sesame"))
    assert address_of(config) == "broker:1883"


def test_small_packets_are_not_held_back(run, broker):
    async def scenario():
        link = await dial(MqttConfig(port=broker.port))
        try:
            with socket.socket(fileno=socket.dup(link.fileno())) as sock:
                return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        finally:
            link.close()

    assert run(scenario()) == 1


def test_nobody_listening_is_told_as_refused(run):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert reason_of_failure(run, port=sock.getsockname()[1]) == "connection refused"


def test_a_host_name_that_does_not_exist_is_told(run):
    assert reason_of_failure(run, host="no-such-host.invalid").startswith("host name not found")


def test_a_broker_that_does_not_answer_ends_the_attempt_in_time(run):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for transport, tls in (("tcp", TlsConfig()), ("websockets", None)):
            reason = reason_of_failure(run, port=port, transport=transport, tls=tls, connect_timeout_s=0.1)
            assert reason == "no answer in time"


def test_an_attempt_can_be_cancelled_in_a_websocket_handshake(run):
    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as silent:
            config = MqttConfig(port=silent.getsockname()[1], transport="websockets", connect_timeout_s=60)
            attempt = asyncio.create_task(dial(config))
            accepted, _ = await asyncio.to_thread(silent.accept)
            with accepted:
                await asyncio.to_thread(accepted.recv, 1)  # the handshake has begun
                attempt.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await attempt

    run(scenario())


def test_messages_pass_over_tls(run, tls_broker, certificates, peer, topic):
    port = tls_broker().port

    async def scenario():
        tls = TlsConfig(ca_file=certificates / "ca.pem")
        async with peer(port, topic, host="localhost", tls=tls) as one:
            large = bytes(range(256)) * 2_000
            await asyncio.gather(*(one.session.publish(outbound(topic, large)) for _ in range(3)))
            return [len(inbound.payload) for inbound in await one.take(3)]

    assert run(scenario()) == [512_000] * 3


def outbound(topic, payload):
    from rkllm_mqtt.mqtt.messages import Outbound

    return Outbound(topic, payload, 1)


def test_an_unknown_authority_is_refused(run, tls_broker, certificates):
    tls = TlsConfig(ca_file=certificates / "other.pem")
    reason = reason_of_failure(run, host="localhost", port=tls_broker().port, tls=tls)
    assert reason.startswith("the broker's certificate is not trusted")


def test_a_wrong_host_name_is_refused_unless_it_is_not_looked_at(run, tls_broker, certificates):
    port = tls_broker().port
    tls = TlsConfig(ca_file=certificates / "ca.pem")
    assert "127.0.0.1" in reason_of_failure(run, port=port, tls=tls)

    async def careless():
        unseen = TlsConfig(ca_file=certificates / "ca.pem", insecure=True)
        (await dial(MqttConfig(port=port, tls=unseen))).close()

    run(careless())


def test_even_a_careless_client_wants_a_known_authority(run, tls_broker, certificates):
    tls = TlsConfig(ca_file=certificates / "other.pem", insecure=True)
    assert "not trusted" in reason_of_failure(run, port=tls_broker().port, tls=tls)


def test_a_missing_certificate_file_is_named(run, broker, tmp_path):
    tls = TlsConfig(ca_file=tmp_path / "none.pem")
    assert "none.pem: No such file" in reason_of_failure(run, port=broker.port, tls=tls)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"ca_file": "our.key"},
            "TLS: there is no certificate in the PEM file {folder}/our.key (tls.ca_file)",
        ),
        (
            {"certificate_file": "our.pem"},
            "TLS: tls.certificate_file and tls.key_file are no certificate and",
        ),
        ({"certificate_file": "our.pem", "key_file": "ca.key"}, "TLS: tls.certificate_file and tls.key_file"),
    ],
)
def test_a_file_of_ours_that_does_not_fit_is_named_by_its_key(run, tls_broker, certificates, files, said):
    tls = TlsConfig(**{"ca_file": certificates / "ca.pem"} | {k: certificates / v for k, v in files.items()})
    reason = reason_of_failure(run, host="localhost", port=tls_broker().port, tls=tls)
    assert reason.startswith(said.format(folder=certificates))


def test_a_client_certificate_with_a_locked_key_is_shown(run, tls_broker, certificates, peer):
    port = tls_broker("require_certificate true").port

    async def scenario():
        ours = TlsConfig(
            ca_file=certificates / "ca.pem",
            certificate_file=certificates / "our.pem",
            key_file=certificates / "our.key",
        )
        async with peer(port, host="localhost", tls=ours, key_password=SecretStr("sesame")) as one:
            assert one.connection.protocol == "5"
        stranger = peer(port, host="localhost", tls=TlsConfig(ca_file=certificates / "ca.pem")).start()
        while stranger.session.last_error is None:
            await asyncio.wait({stranger.task}, timeout=0.01)
        await stranger.vanish()
        return stranger.session.last_error

    assert "certificate required" in run(scenario())


def test_a_wrong_key_password_fails_without_asking_at_the_terminal_and_without_telling_it(
    run, certificates, broker
):
    tls = TlsConfig(
        ca_file=certificates / "ca.pem",
        certificate_file=certificates / "our.pem",
        key_file=certificates / "our.key",
    )
    reason = reason_of_failure(run, port=broker.port, tls=tls, key_password=SecretStr("open-barley"))
    assert reason
    assert "barley" not in reason


@pytest.fixture(scope="module")
def websockets(amqtt, certificates):
    """Return the ports of a plain and of an encrypted websocket listener.

    Not mosquitto's: 2.0.11 opens these on all addresses, whatever it is told.
    """
    files = {"cafile": "ca.pem", "certfile": "server.pem", "keyfile": "server.key"}
    return amqtt(
        {"type": "ws"}, {"type": "ws", "ssl": True} | {k: str(certificates / f) for k, f in files.items()}
    )


def test_messages_pass_over_websockets(run, websockets, peer, topic):
    port, _ = websockets

    async def scenario():
        async with peer(port, topic, transport="websockets", protocol="3.1.1") as one:
            payloads = [bytes((number,)) * 700 * number for number in range(1, 30)]
            await asyncio.gather(*(one.session.publish(outbound(topic, p)) for p in payloads))
            assert [inbound.payload for inbound in await one.take(len(payloads))] == payloads

    run(scenario())


def test_messages_pass_over_encrypted_websockets(run, websockets, certificates, peer, topic):
    _, port = websockets

    async def scenario():
        tls = TlsConfig(ca_file=certificates / "ca.pem")
        async with peer(
            port, topic, host="localhost", transport="websockets", tls=tls, protocol="3.1.1"
        ) as one:
            await asyncio.gather(*(one.session.publish(outbound(topic, b"x" * 999)) for _ in range(50)))
            assert len(await one.take(50)) == 50

    run(scenario())


def test_a_web_server_that_is_no_broker_is_an_error(run, broker):
    assert reason_of_failure(run, port=broker.port, transport="websockets")


def test_messages_pass_over_a_unix_socket(run, mosquitto, peer, topic, tmp_path):
    path = tmp_path / "mqtt.sock"
    mosquitto(listener=f"0 {path}").start()

    async def scenario():
        async with peer(0, topic, transport="unix", socket_path=path) as one:
            await one.session.publish(outbound(topic, b"hi"))
            assert (await one.messages.get()).payload == b"hi"

    run(scenario())


def test_a_missing_unix_socket_is_told(run, tmp_path):
    assert "no such" in reason_of_failure(run, transport="unix", socket_path=tmp_path / "none.sock")
