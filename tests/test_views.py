"""The promise of `views.py`: flat, small, true members of the retained topics."""

import json

import pytest
from live_slot import MODELS


@pytest.fixture
def state(served, shared_daemon):
    """Return the members of a retained topic of the shared daemon, once they are as they should be."""
    watcher, _ = served

    def read(name, holds=lambda members: True):
        topic = f"rkllm/{shared_daemon.node}/{name}"
        return watcher.wait(lambda m: m.topic == topic and holds(m.json)).json

    return read


def test_info_says_what_the_daemon_is(state, shared_daemon):
    info = state("info")
    assert (info["schema"], info["node"], info["base"]) == ("1.0", shared_daemon.node, "rkllm")
    assert info["runtime"] == {
        "version": "1.3.1",
        "abi": "F",
        "driver": info["runtime"]["driver"],
        "platform": "RK3588",
        "simulated": True,
    }
    (model,) = info["models"]
    assert (model["id"], model["loaded"], model["context_tokens"]) == ("demo", True, 4096)
    assert {"chat", "sampling"} <= set(model["capabilities"])
    assert info["topics"]["request"].startswith(f"rkllm/{shared_daemon.node}/client/")
    assert info["limits"]["id_retention_s"] == 86_400
    assert len(json.dumps(info)) < 5_000


def test_queue_of_an_idle_node_is_empty(state):
    queue = state("queue")
    assert queue["slots"]["total"] == 1
    assert set(queue["waiting_by_priority"]) == {"interactive", "normal", "background"}
    assert queue["accepting"] is True


def test_health_says_that_it_is_simulated_and_which_process_works(state):
    health = state("health", lambda members: members["model_loaded"])
    assert (health["simulated"], health["status"], health["model_loaded"]) == (True, "healthy", "demo")
    assert health["worker"]["pid"] > 1
    assert health["worker"]["restarts"] == 0
    assert health["disk_free_mb"] > 0
    assert health["broker"] == {"protocol": "5", "reconnects": 0}
    assert health["boot_id"] == state("info")["boot_id"]


def test_stats_are_flat_numbers(state):
    stats = state("stats")
    assert all(value is None or isinstance(value, int | float) for value in stats.values())
    assert stats["rss_mb"] > 5
    assert stats["worker_rss_mb"] > 5


def test_the_queue_is_true_while_a_run_goes_on(launch):
    daemon, watcher = launch(
        environment={"RKLLM_SIM_PROFILE": ""},
        models=[{"id": "faulty", "file": str(MODELS / "faulty.sim")}],
    )
    box, topic = daemon.client("app"), f"rkllm/{daemon.node}/queue"
    watcher.publish(
        f"{box}/request/run", {"prompt": "endless", "max_tokens": 4000, "priority": "interactive"}
    )
    watcher.publish(f"{box}/request/wait", {"prompt": "say: hello", "priority": "interactive"})
    watcher.publish(f"{box}/request/wait2", {"prompt": "say: hello"})
    told = watcher.wait_many(lambda m: m.topic == topic and m.json["running"] and m.json["length"] == 2, 2)
    for queue in (message.json for message in told):
        assert queue["state"] == "busy"
        assert queue["slots"] == {"total": 1, "active": 1, "available": 0}
        assert queue["waiting_by_priority"] == {"interactive": 1, "normal": 1, "background": 0}
        (running,) = queue["running"]
        assert (running["id"], running["client"], running["priority"]) == ("run", "app", "interactive")
        assert running["attempt"] == 1
    tokens = [message.json["running"][0]["tokens"] for message in told]
    assert tokens == sorted(set(tokens))
    waits = [message.json["oldest_wait_s"] for message in told]
    assert waits == sorted(waits)
    watcher.publish(f"{box}/cancel", {"all": True})
    idle = watcher.wait(lambda m: m.topic == topic and m.json["state"] == "idle" and m.at > told[-1].at).json
    assert (idle["length"], idle["running"], idle["oldest_wait_s"], idle["eta_s"]) == (0, [], 0, None)


def test_an_old_driver_is_a_reason_to_worry(launch, tmp_path):
    model = tmp_path / "old.sim"
    model.write_text("rkllm-simulator 1\nprofile: instant\ndriver_version: 0.9.2\n")
    version = tmp_path / "board" / "sys/kernel/debug/rknpu/version"
    version.parent.mkdir(parents=True)
    version.write_text("RKNPU driver: v0.9.2\n")
    daemon, watcher = launch(models=[{"id": "old", "file": str(model)}], sysfs_root=str(tmp_path / "board"))
    topic = f"rkllm/{daemon.node}/health"
    health = watcher.wait(lambda m: m.topic == topic and m.json["model_loaded"]).json
    assert health["status"] == "degraded"
    assert health["driver"] == "0.9.2"
    (reason,) = [reason for reason in health["reasons"] if reason["code"] == "driver_old"]
    assert "0.9.8" in reason["hint"]
