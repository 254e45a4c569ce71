"""The promise of `config/schedules.py`: what cannot work is refused with the reason, before any start."""

import pytest
import yaml

from rkllm_mqtt.config import ConfigError, parse_config


def parse(*schedules, **settings):
    given = [{"id": "s", "prompt": "hi", **schedule} for schedule in schedules]
    return parse_config(yaml.safe_dump({"schedules": given, **settings}), "c.yaml", {})


def test_a_schedule_needs_a_time_and_a_prompt_and_is_a_background_client_by_default():
    (schedule,) = parse({"cron": "0 7 * * mon-fri", "timezone": "Europe/Warsaw"}).schedules
    assert (schedule.client, schedule.priority, schedule.coalesce) == ("schedule", "background", True)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "every day"}, "cron"),
        ({"cron": "* * * * *", "every_s": 5}, "give one of cron"),
        ({}, "give one of cron"),
        ({"every_s": 60, "messages": [{"role": "user", "content": "hi"}]}, "either prompt or messages"),
        ({"every_s": 60, "timezone": "Mars/Olympus"}, "there is no time zone"),
        ({"every_s": 60, "timezone": "../../etc/passwd"}, "there is no time zone"),
        ({"every_s": 60, "values": {"x": "rkllm/rock/status"}}, "may not use the topic"),
        ({"every_s": 60, "values": {"x": "homeassistant/status"}}, "may not use the topic"),
        ({"every_s": 60, "values": {"now": "home/x"}}, "`now` is the date"),
        ({"every_s": 60, "values": {"X y": "home/x"}}, "values"),
        ({"every_s": 60, "reply_topic": "a/+/b"}, "reply_topic"),
        ({"every_s": 60, "reply_topic": "rkllm/rock/client/c/request"}, "may not use the topic"),
        ({"every_s": 60, "preset": "wild"}, "unknown preset"),
        ({"every_s": 60, "model": "nothing"}, "unknown model"),
        ({"every_s": 60, "client": "a/b"}, "client"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(schedule, reason):
    with pytest.raises(ConfigError, match=r"c\.yaml:.*schedule") as refused:
        parse(schedule)
    assert reason in str(refused.value)


def test_two_schedules_need_two_names():
    with pytest.raises(ConfigError, match="two schedules have the same id"):
        parse({"every_s": 60}, {"every_s": 90})
