"""The promise of `reporter.py`: the retained topics are true, soon, and never a flood."""

import asyncio
import json
from itertools import pairwise

from virtual_loop import in_virtual_time

from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.core.topics import Topics
from rkllm_mqtt.reporter import Reporter, Views

SERIOUS = Reason("journal", "the disk is full", "Free some space.", serious=True)


class Node:
    """What is reported, in the hands of the test, and what was published when."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.length, self.running, self.jobs = 0, [], 0
        self.reasons, self.worker_pid = [], 7
        self.connected = True
        self.published = []
        self.reporter = Reporter(
            Topics("rkllm", "rock"),
            Views(
                lambda: {"schema": "1.0"},
                lambda: {"length": self.length, "running": list(self.running)},
                lambda: ({"model_loaded": "m", "worker": {"pid": self.worker_pid}}, list(self.reasons)),
                lambda: {"jobs": self.jobs},
                lambda: self.jobs,
            ),
            self.publish,
            lambda: self.connected,
        )
        self.tasks = [
            asyncio.create_task(self.reporter.run_queue()),
            asyncio.create_task(self.reporter.run_health()),
        ]

    def publish(self, message):
        self.published.append((self.loop.time(), message))

    def of(self, name):
        """When a topic was published, and its payload."""
        return [
            (at, json.loads(message.payload))
            for at, message in self.published
            if message.topic == f"rkllm/rock/{name}"
        ]

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


@in_virtual_time
async def test_at_a_connect_everything_is_said_and_that_we_are_online_last():
    node = Node()
    node.reporter.announce()
    names = [message.topic.rsplit("/", 1)[1] for _, message in node.published]
    assert names == ["info", "queue", "health", "stats", "status"]
    assert all(message.retain for _, message in node.published)
    assert [message.qos for _, message in node.published] == [1, 1, 1, 0, 1]
    assert node.published[-1][1].payload == b"online"
    await node.end()


@in_virtual_time
async def test_the_queue_follows_a_change_within_a_second_and_is_told_at_most_once_a_second():
    node = Node()
    await asyncio.sleep(10)
    changes = []
    for number in range(1, 100):
        node.length = number
        changes.append(node.loop.time())
        node.reporter.changed()
        await asyncio.sleep(0.07)
    await asyncio.sleep(2)
    told = node.of("queue")
    assert all(later - earlier >= 0.98 for (earlier, _), (later, _) in pairwise(told[1:]))
    for number, changed_at in enumerate(changes, 1):
        assert any(0 <= at - changed_at <= 1.001 and queue["length"] >= number for at, queue in told)
    await node.end()


@in_virtual_time
async def test_the_queue_is_true_while_a_run_goes_on_without_anybodys_call():
    node = Node()
    node.running = [{"tokens": 0}]
    node.reporter.changed()
    for tokens in range(1, 50):
        await asyncio.sleep(0.2)
        node.running = [{"tokens": tokens}]
    told = node.of("queue")
    assert 8 <= len(told) <= 12
    assert told[-1][1]["running"][0]["tokens"] >= 43
    await node.end()


@in_virtual_time
async def test_a_queue_that_has_not_changed_is_not_told_again():
    node = Node()
    for _ in range(20):
        node.reporter.changed()
        await asyncio.sleep(1)
    assert len(node.of("queue")) == 1
    node.reporter.announce()
    assert len(node.of("queue")) == 2
    await node.end()


@in_virtual_time
async def test_health_comes_every_30_seconds_and_soon_after_a_change():
    node = Node()
    node.reporter.announce()
    await asyncio.sleep(100)
    assert len(node.of("health")) == 4
    node.reasons = [SERIOUS]
    changed_at = node.loop.time()
    await asyncio.sleep(3)
    at, health = node.of("health")[-1]
    assert 0 <= at - changed_at <= 2
    assert health["status"] == "unhealthy"
    assert health["reasons"] == [
        {"code": "journal", "message": "the disk is full", "hint": "Free some space."}
    ]
    node.worker_pid, node.reasons = 8, [Reason("disk_low", "little space")]
    await asyncio.sleep(3)
    assert node.of("health")[-1][1]["status"] == "degraded"
    assert node.of("health")[-1][1]["worker"] == {"pid": 8}
    assert node.reporter.health()["at"] > 1_700_000_000
    await node.end()


@in_virtual_time
async def test_stats_come_every_30_seconds_and_within_a_second_of_the_end_of_a_job():
    node = Node()
    node.reporter.announce()
    await asyncio.sleep(100)
    assert 3 <= len(node.of("stats")) <= 5
    node.jobs = 1
    node.reporter.changed()
    await asyncio.sleep(1)
    assert node.of("stats")[-1][1] == {"jobs": 1}
    before = len(node.of("stats"))
    for number in range(2, 200):
        node.jobs = number
        node.reporter.changed()
        await asyncio.sleep(0.05)
    assert len(node.of("stats")) - before <= 14
    await node.end()


@in_virtual_time
async def test_while_the_broker_is_away_nothing_is_said():
    node = Node()
    node.connected = False
    await asyncio.sleep(50)
    node.length = 5
    node.reporter.changed()
    node.reporter.tell_info()
    await asyncio.sleep(50)
    assert node.published == []
    node.connected = True
    node.reporter.announce()
    assert node.of("queue")[-1][1]["length"] == 5
    node.reporter.tell_info()
    assert len(node.of("info")) == 2
    await node.end()


@in_virtual_time
async def test_the_farewell_is_the_will():
    node = Node()
    farewell = node.reporter.offline()
    assert (farewell.topic, farewell.payload, farewell.qos, farewell.retain) == (
        "rkllm/rock/status",
        b"offline",
        1,
        True,
    )
    await node.end()
