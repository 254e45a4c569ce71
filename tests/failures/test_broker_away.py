"""The broker goes, hangs or lets another client take the session over: the slot works on.

What a broker gets that has forgotten everything: `end_to_end/test_broker_limits.py`.
"""

import signal

from live_client import Client

SLOW = {"RKLLM_SIM_PROFILE": "origin"}


def test_what_ends_while_the_broker_is_away_is_delivered_when_it_is_back(own_broker, launch):
    broker = own_broker(persistence=True)
    # A session that the broker keeps, as a device's library does on 3.1.1.
    daemon, watcher = launch(port=broker.port, environment=SLOW)
    box = daemon.client("app")
    device = Client(broker.port, v5=False, client_id="device", clean_session=False).subscribe(
        f"{box}/reply/+"
    )
    for name in ("q1", "q2"):
        watcher.publish(f"{box}/request/{name}", {"prompt": "say: hello", "stream": True})
    watcher.wait(lambda m: m.topic == f"{box}/event/q1" and m.json["type"] == "started")
    broker.stop()
    daemon.until_logged("job_ended", 2)
    broker.start()
    for name in ("q1", "q2"):
        assert device.reply(f"{box}/reply/{name}").json["text"] == "hello"
    device.close()


def test_a_broker_that_hangs_is_noticed_and_the_answer_comes_after_it(own_broker, launch):
    broker = own_broker()
    daemon, watcher = launch(
        port=broker.port,
        environment=SLOW,
        mqtt={"keepalive_s": 2, "reconnect_max_s": 0.5, "connect_timeout_s": 1},
    )
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "story 5 tokens"})
    watcher.wait(lambda m: m.topic == f"{box}/event/q1" and m.json["type"] == "started")
    broker.process.send_signal(signal.SIGSTOP)
    daemon.until_logged("broker_lost")
    broker.process.send_signal(signal.SIGCONT)
    assert watcher.reply(f"{box}/reply/q1").json["usage"]["completion_tokens"] == 5


def test_a_client_that_takes_the_session_over_is_told_in_health_and_nothing_is_lost(
    own_broker, launch, connect, tmp_path
):
    broker = own_broker()
    daemon, watcher = launch(port=broker.port, mqtt={"reconnect_max_s": 0.3})
    client_id = daemon_client_id(broker)
    box, topic = daemon.client("app"), f"rkllm/{daemon.node}/health"
    codes: set[str] = set()
    for _ in range(20):
        before = len(watcher.on(f"rkllm/{daemon.node}/info"))
        Client(broker.port, client_id=client_id).close()
        watcher.wait(lambda _, n=before: len(watcher.on(f"rkllm/{daemon.node}/info")) > n)
        codes = {reason["code"] for m in watcher.on(topic) for reason in m.json["reasons"]}
        if "taken_over" in codes:
            break
    assert "taken_over" in codes
    watcher.publish(f"{box}/request/q1", {"prompt": "say: hello"})
    assert watcher.reply(f"{box}/reply/q1").json["text"] == "hello"


def daemon_client_id(broker):
    """Return what the broker's log calls the daemon: nobody else is told."""
    names = (broker.folder / "mosquitto.log").read_text().split()
    return next(name for name in names if name.startswith("rkllm-mqtt-"))
