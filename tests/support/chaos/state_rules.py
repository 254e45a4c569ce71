"""What the retained topics must say: `offline` in time when the daemon is gone, the truth when it is back."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from chaos.answers import Thread
from chaos.recording import Look, Recording

_WILL_SLACK_S = 1.0
_HEALTH_S = 30.0
"""So often `health` is told when nothing changes."""
_WORKER_ENDS_S = 8.0
"""A worker that hangs is killed and replaced, and `health` has told of the new one, within this time."""
_TOLD_S = 2.0
"""`queue` and `health` follow a change within this time."""


def offline(recording: Recording, _threads: list[Thread], seen: Counter[str]) -> Iterator[str]:
    """A daemon that is gone is told `offline` in time."""
    topic = f"rkllm/{recording.node}/status"
    told = [said.at for said in recording.said if said.topic == topic and said.payload == "offline"]
    for before in recording.links:
        if before.state not in ("down", "silent"):
            continue
        wait_s = recording.will_delay_s + _WILL_SLACK_S
        if before.state == "silent":
            wait_s += 1.5 * recording.keepalive_s
        end = before.at + wait_s + recording.grace_s
        back_at = _back_at(recording, before.at)
        if back_at is not None and back_at <= end:
            continue  # it came back in time: the broker says nothing
        if recording.disturbed(before.at - 1 - recording.grace_s, end, "broker", "observer", "machine"):
            continue
        seen["offline"] += 1
        # A farewell comes before the connection ends.
        if not any(before.at - 3 <= at <= end for at in told):
            yield f"{topic}: no `offline` within {wait_s:.1f} s of {before.state} at {before.at:.3f}"


def _back_at(recording: Recording, gone_at: float) -> float | None:
    return next(
        (link.at for link in recording.links if link.at > gone_at and link.state == "connected"), None
    )


def online(recording: Recording, threads: list[Thread], seen: Counter[str]) -> Iterator[str]:
    """Two seconds after a reconnect a new subscriber finds the truth."""
    boots: dict[str, int] = {}
    for look in recording.looks:
        if recording.disturbed(look.after, look.at, "broker", "daemon", "link", "machine"):
            continue
        if not recording.served(look.after, look.at):
            continue
        seen["online"] += 1
        missing = {"status", "info", "queue", "health", "stats"} - look.topics.keys()
        if missing:
            yield f"{sorted(missing)} not there {look.at - look.after:.1f} s after a reconnect"
            continue
        for sentence in _lies(recording, threads, look, boots):
            yield f"{look.at - look.after:.1f} s after a reconnect: {sentence}"


def _lies(recording: Recording, threads: list[Thread], look: Look, boots: dict[str, int]) -> Iterator[str]:
    info, queue, health = (json.loads(look.topics[name]) for name in ("info", "queue", "health"))
    if look.topics["status"] != "online":
        yield f"status is {look.topics['status']!r}"
    life = next((n for n, life in enumerate(recording.lives) if _lives(life.begin, life.end, look.at)), -1)
    if health["boot_id"] != info["boot_id"] or boots.setdefault(info["boot_id"], life) != life:
        yield f"boot_id {info['boot_id']} of info, {health['boot_id']} of health: of another life"
    if not recording.disturbed(look.after - 1, look.at, "clock"):
        age_s = look.wall_s - health["at"]
        oldest_s = _HEALTH_S if look.last else look.at - look.after
        if not -2 <= age_s <= oldest_s + 2 + recording.grace_s:
            yield f"health is {age_s:.1f} s old"
    worker = health["worker"]["pid"]
    if worker != look.worker_pid and not _worker_may_have_died(recording, threads, look.at):
        yield f"health names the worker {worker}, it is {look.worker_pid}"
    yield from _wrong_queue(threads, look, queue)


def _lives(begin: float, end: float | None, at: float) -> bool:
    return begin <= at and (end is None or at < end)


def _worker_may_have_died(recording: Recording, threads: list[Thread], at: float) -> bool:
    begin = at - _WORKER_ENDS_S
    faulty = [ran for thread in threads if thread.asked.faulty for ran in thread.runs]
    return any(begin <= ran.begin <= at for ran in faulty) or recording.disturbed(begin, at, "worker")


def _wrong_queue(threads: list[Thread], look: Look, queue: dict[str, Any]) -> Iterator[str]:
    """What waits or runs was sent, and is not finished since longer than `queue` takes to follow."""
    told_at = look.at - _TOLD_S
    unfinished = {
        (thread.asked.client, thread.asked.id)
        for thread in threads
        if thread.asked.first_at <= look.at and not (thread.outcomes and thread.outcomes[0].at < told_at)
    }
    for job in queue["running"]:
        if (job["client"], job["id"]) not in unfinished:
            yield f"queue runs {job['client']}/{job['id']}, which is finished or was never sent"
    if queue["length"] > len(unfinished):
        yield f"queue has {queue['length']} waiting, but {len(unfinished)} are not finished"
    if look.last and (queue["length"], queue["running"], queue["state"]) != (0, [], "idle"):
        yield f"after all work the queue is {queue['state']}: {queue['length']} wait, {queue['running']} run"


RULES = (offline, online)
