"""Recurring prompts of a real daemon: asked at their time, with values of other topics, once."""

import json
import re
from datetime import UTC, datetime

import pytest
from chaos.machine import Machine

NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC).timestamp()
MINUTE = {"id": "minute", "cron": "* * * * *", "timezone": "UTC", "prompt": "say: tick"}


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "board").mkdir()
    made = Machine(tmp_path / "board", tmp_path)
    yield made
    made.close()


def test_a_schedule_fires_once_each_time_though_the_clock_moves_and_the_daemon_is_killed(launch, machine):
    machine.set_wall(NOON - 40)
    daemon, watcher = launch(environment=dict(machine.environment), schedules=[MINUTE])
    box = daemon.client("schedule")

    def final(minute):
        return watcher.reply(f"{box}/reply/minute.20300101T12{minute:02}00Z").json["text"]

    machine.set_wall(NOON)
    assert final(0) == "tick"
    machine.set_wall(NOON + 60)
    assert final(1) == "tick"
    daemon.kill()
    machine.set_wall(NOON + 125)
    daemon.start(watcher)
    assert final(2) == "tick"
    machine.set_wall(NOON + 59)  # back, into a time that has been
    machine.set_wall(NOON + 180)
    assert final(3) == "tick"
    daemon.kill()
    machine.set_wall(NOON + 181)
    daemon.start(watcher)
    machine.set_wall(NOON + 240)
    assert final(4) == "tick"
    starts = [
        m.topic for m in watcher.messages if m.topic.startswith(f"{box}/event") and b'"started"' in m.payload
    ]
    assert len(starts) == len(set(starts)) == 5
    replies = {m.topic for m in watcher.messages if m.topic.startswith(f"{box}/reply")}
    assert all(re.search(r"minute\.20300101T120[0-4]00Z$", topic) for topic in replies)


def test_retained_values_go_into_the_prompt_and_the_answer_to_the_configured_topic(launch, connect):
    board = connect("home/#")
    topic, answers = f"home/weather-{id(board)}", f"home/summary-{id(board)}"
    board.publish(topic, "heavy rain", retain=True)
    schedule = {
        "id": "morning",
        "at": "2020-01-01T00:00:00",
        "prompt": "say: it is {{ weather }}",
        "values": {"weather": topic},
        "reply_topic": answers,
        "format": "text",
        "retain": True,
    }
    daemon, watcher = launch(schedules=[schedule])
    admin = f"rkllm/{daemon.node}/admin"
    watcher.publish(f"{admin}/request/run", {"schedule": "morning", "transaction": 7})
    response = watcher.reply(f"{admin}/response/run").json
    assert (response["status"], response["transaction"]) == ("ok", 7)
    assert board.reply(answers).payload == b"it is heavy rain"
    late = connect(answers)
    assert late.reply(answers).retain
    shown = watcher.reply(f"rkllm/{daemon.node}/schedules").json["schedules"]
    assert [schedule["id"] for schedule in shown] == ["morning"]
    board.publish(topic, "", retain=True)
    late.publish(answers, "", retain=True)


def test_an_administrator_lists_pauses_and_resumes(launch):
    daemon, watcher = launch(schedules=[MINUTE])
    admin = f"rkllm/{daemon.node}/admin"

    def command(name, **arguments):
        number = len(watcher.on(f"{admin}/response/{name}"))
        watcher.publish(f"{admin}/request/{name}", arguments)
        found = watcher.wait_many(lambda m: m.topic == f"{admin}/response/{name}", number + 1)
        return json.loads(found[-1].payload)

    (shown,) = command("schedules")["data"]["schedules"]
    assert (shown["id"], shown["state"]) == ("minute", "active")
    assert command("pause", schedule="minute")["data"]["schedules"][0]["state"] == "paused"
    watcher.wait(
        lambda m: m.topic == f"rkllm/{daemon.node}/schedules" and m.json["schedules"][0]["state"] == "paused"
    )
    assert command("resume", schedule="minute")["data"]["schedules"][0]["state"] == "active"
    refused = command("run", schedule="nothing")
    assert refused["status"] == "error"
    assert "minute" in refused["error"]
