"""One client's flood is its own affair: the others are accepted, the daemon stays small, nothing is lost.

Real mosquitto without a limit of its queue, a real daemon. The bounds are for a machine that is busy with
other tests: `python -m bench --only flooding --only clients` measures.
"""

import time
from pathlib import Path

from live_client import Client

UNLIMITED = {"max_queued": 0}


def rss_mb(daemon):
    """Return the memory of the daemon in megabytes."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_a_flood_of_one_client_neither_delays_the_others_nor_fills_the_memory(own_broker, launch):
    broker = own_broker(**UNLIMITED)
    # A slow library: what is accepted stays in the queue.
    daemon, watcher = launch(
        port=broker.port,
        environment={"RKLLM_SIM_PROFILE": "qwen2.5-1.5b"},
        limits={"requests_per_s": 20, "requests_burst": 20, "rejects_per_s": 20},
    )
    before = rss_mb(daemon)
    noisy, quiet = daemon.client("noisy"), daemon.client("quiet")
    flood = Client(broker.port)
    late = []
    for round_ in range(10):
        for number in range(100):
            flood.publish_soon(f"{noisy}/request/f{round_}-{number}", {"prompt": "story 50 tokens"})
        asked_at = time.monotonic()
        watcher.publish_soon(f"{quiet}/request/q{round_}", {"prompt": "say: hi"})
        topic = f"{quiet}/event/q{round_}"
        told = watcher.reply(topic)
        assert told.json["type"] == "accepted"
        late.append(told.at - asked_at)
    flood.close()
    accepted = [
        m for m in watcher.messages if m.topic.startswith(f"{noisy}/event/f") and m.json["type"] == "accepted"
    ]
    dropped = watcher.wait(lambda m: m.topic == f"{noisy}/event" and m.json["type"] == "rate_limited").json
    assert dropped["dropped"] > 0
    assert dropped["retry_after_s"] <= 0.2
    assert 20 <= len(accepted) < 700
    assert rss_mb(daemon) < before + 20
    # A whole flood in front of it would be seconds; most are milliseconds even on a busy machine.
    assert sorted(late)[5] < 1.0, late
    topic = f"rkllm/{daemon.node}/stats"
    stats = watcher.wait(lambda m: m.topic == topic and m.json["requests_dropped_total"]).json
    assert stats["rejected_rate_limited_total"] > 0
    # Each of the flood that was accepted can still be ended by its sender, at once and in one go.
    watcher.publish(f"{noisy}/cancel", {"all": True})
    ids = {m.topic.rsplit("/", 1)[1] for m in accepted}
    for name in ids:
        final = watcher.wait(
            lambda m, t=f"{noisy}/reply/{name}": m.topic == t and m.json["finish_reason"] != "error"
        )
        assert final.json["finish_reason"] in ("cancelled", "stop")


def test_a_sender_that_resends_until_accepted_gets_through_its_own_limits(own_broker, launch):
    broker = own_broker(**UNLIMITED)
    limits = {"requests_per_s": 60, "requests_burst": 5, "requests_burst_alone": 5, "rejects_per_s": 5}
    daemon, watcher = launch(port=broker.port, limits=limits)
    box = daemon.client("app")
    left, until = {f"q{number}" for number in range(40)}, time.monotonic() + 60
    while left:
        assert time.monotonic() < until, left
        for name in left:
            watcher.publish_soon(f"{box}/request/{name}", {"prompt": f"say: {name}"})
        again_at = time.monotonic() + 0.3
        while (pause_s := again_at - time.monotonic()) > 0:
            watcher.wait_next(pause_s)
        left -= {
            name
            for name in set(left)
            if any(m.json["type"] == "accepted" for m in watcher.on(f"{box}/event/{name}"))
        }
    for number in range(40):
        name = f"q{number}"
        ok = watcher.wait(lambda m, t=f"{box}/reply/{name}": m.topic == t and m.json["status"] == "ok").json
        assert ok["text"] == name
    # After its `accepted` no id was ever told anything but its one outcome.
    for number in range(40):
        replies = [m.json for m in watcher.on(f"{box}/reply/q{number}")]
        first_ok = next(at for at, reply in enumerate(replies) if reply["status"] == "ok")
        assert all(reply["status"] == "ok" for reply in replies[first_ok:])
