"""Brokers that drop, go away and come back."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from live_client import Client
from live_daemon import Daemon


def test_resending_until_accepted_recovers_what_the_broker_dropped_from_its_full_queue(launch, own_broker):
    # As long as mosquitto's own where nothing is configured. What is beyond it is dropped although it was
    # acknowledged.
    broker = own_broker(max_queued=1_000)
    daemon, watcher = launch(port=broker.port)
    box = daemon.client("app")
    daemon.stop()
    wanted = {f"r{number}": f'{{"prompt":"prompt {number}"}}'.encode() for number in range(1_200)}
    for request_id, payload in wanted.items():
        watcher.publish_soon(f"{box}/request/{request_id}", payload)
    watcher.publish(f"{box}/request/last", "the last of all")
    daemon.start(watcher)

    def accepted() -> set[str]:
        events = [
            message.json for message in list(watcher.messages) if message.topic.startswith(f"{box}/event/")
        ]
        return {event["id"] for event in events if event["type"] == "accepted"}

    watcher.wait_many(lambda m: m.topic.startswith(f"{box}/event/") and m.json["type"] == "accepted", 950)
    dropped = len(wanted) - len(accepted())
    assert dropped > 100, "the broker kept more than it may"
    for _ in range(20):
        missing = wanted.keys() - accepted()
        if not missing:
            break
        for request_id in missing:
            watcher.publish(f"{box}/request/{request_id}", wanted[request_id])
    for number in range(1_200):
        assert watcher.reply(f"{box}/reply/r{number}").json["text"] == f"You said: prompt {number}"


@pytest.mark.parametrize("persistence", [True, False])
def test_a_restarted_broker_gets_every_outcome_and_the_retained_state_again(
    launch, own_broker, connect, persistence
):
    broker = own_broker(persistence=persistence)
    daemon, watcher = launch(
        port=broker.port, environment={"RKLLM_SIM_PROFILE": "origin"}, mqtt={"reconnect_max_s": 0.2}
    )
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "story 20 tokens"})
    watcher.publish(f"{box}/request/q2", {"prompt": "story 5 tokens"})
    watcher.wait(lambda m: m.topic == f"{box}/event/q1" and m.json["type"] == "started")
    broker.stop(signal.SIGKILL if not persistence else signal.SIGTERM)
    broker.start()
    after = connect(f"rkllm/{daemon.node}/#", port=broker.port)
    losses = [line for line in daemon.log.splitlines() if "broker_lost" in line]
    assert losses
    assert all("retry_s=" in line for line in losses), "a loss is logged twice"
    assert after.reply(f"{box}/reply/q1").json["usage"]["completion_tokens"] == 20
    assert after.reply(f"{box}/reply/q2").json["status"] == "ok"
    for name in ("status", "info", "queue", "health", "stats"):
        assert after.reply(f"rkllm/{daemon.node}/{name}")


def test_a_subscription_that_the_broker_refuses_is_told_in_health_and_log(own_broker, tmp_path):
    """Mosquitto's acl_file never refuses one; its plugin `dynamic security` does."""
    rights = tmp_path / "rights.json"
    subprocess.run(
        ["mosquitto_ctrl", "dynsec", "init", rights, "watcher", "pw"], check=True, capture_output=True
    )
    members = json.loads(rights.read_text())
    members["defaultACLAccess"].update(publishClientSend=True, subscribe=False)
    rights.write_text(json.dumps(members))
    plugin = next(Path("/usr").glob("lib*/**/mosquitto_dynamic_security.so"))
    broker = own_broker(extra=f"plugin {plugin}\nplugin_opt_config_file {rights}")
    watcher = Client(broker.port, user=("watcher", "pw")).subscribe("rkllm/#")
    daemon = Daemon(tmp_path, broker.port, "deaf", {}, {**os.environ, "RKLLM_SIM_PROFILE": "instant"})
    try:
        daemon.start(watcher)
        health = watcher.wait(
            lambda m: m.topic == "rkllm/deaf/health" and b"subscription_refused" in m.payload
        ).json
        assert health["status"] == "unhealthy"
        assert "rkllm/deaf/client/+/request/#" in health["reasons"][0]["message"]
        assert "subscription_refused filter=rkllm/deaf/client/+/request/#" in daemon.log
    finally:
        daemon.stop()
        watcher.close()


def test_under_a_small_packet_limit_text_is_cut_and_not_lost(own_broker, unloaded):
    """A maximum below the size of a JSON final still carries bare text; `health` tells what is wrong."""
    broker = own_broker(extra="max_packet_size 900")
    daemon, watcher = unloaded(port=broker.port)  # `info` does not fit
    watcher.reply(f"rkllm/{daemon.node}/status")
    box = daemon.client("app")
    watcher.publish(f"{box}/request/text", "story 300 words")
    watcher.publish(f"{box}/request/json", {"prompt": "story 300 words"})
    text = watcher.reply(f"{box}/reply/text").payload.decode()
    final = watcher.reply(f"{box}/reply/json").json
    assert text.startswith(final["text"])
    assert 900 - 80 < len(text) < 900, "the packet is used up to its end"
    assert final["truncated"]
    assert len(final["text"]) > 200
    (reason,) = watcher.on(f"rkllm/{daemon.node}/health")[-1].json["reasons"]
    assert reason["code"] == "packets_small"
    assert "900 bytes" in reason["message"]
    assert "packets_small maximum_bytes=900" in daemon.log
