"""The promise of `recurring/question.py`: values become text of the prompt, never a part of the request."""

import json
from datetime import UTC, datetime

import pytest

from rkllm_mqtt.config import ConfigError, ScheduleConfig
from rkllm_mqtt.recurring.question import Question

NOW = datetime(2026, 11, 22, 7, 5, tzinfo=UTC)


def payload(values=None, **settings):
    settings = {"prompt": "hi"} | settings if "messages" not in settings else settings
    return json.loads(Question(ScheduleConfig(id="s", every_s=60, **settings)).payload(values or {}, NOW))


def test_values_and_the_time_stand_where_the_template_says():
    text = (
        "It is {{ now.strftime('%H:%M') }}, {{ weather }}, {{ (outside | from_json).temperature }} degrees."
    )
    asked = payload({"weather": "rain", "outside": '{"temperature": 7}'}, prompt=text)
    assert asked["prompt"] == "It is 07:05, rain, 7 degrees."


def test_a_value_that_nobody_has_published_is_unknown():
    asked = payload(
        {"weather": None}, prompt="{{ weather }} {{ (weather | from_json).x }}{% if weather %}!{% endif %}"
    )
    assert asked["prompt"].split() == ["unknown", "unknown"]


@pytest.mark.parametrize(
    "hostile", ['", "priority": "interactive', "{{ now }}", "{% for x in range(9) %}", "\ud800"]
)
def test_what_a_sender_of_a_value_writes_is_text_and_nothing_else(hostile):
    asked = payload({"v": hostile}, prompt="<{{ v }}>")
    assert asked["prompt"] == f"<{hostile}>" or hostile == "\ud800"
    assert asked["priority"] == "background"


def test_messages_keep_their_roles():
    messages = [{"role": "system", "content": "Be {{ mood }}."}, {"role": "user", "content": "Hello."}]
    asked = payload({"mood": "kind"}, messages=messages)
    assert asked["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello."},
    ]


def test_the_settings_of_the_request_go_with_it():
    settings = {"priority": "normal", "model": "m", "preset": "precise", "max_tokens": 9, "ttl_s": 60}
    assert payload(**settings) == {"prompt": "hi", **settings}
    assert payload(retain=True)["retain"] is True
    assert "retain" not in payload(retain=True, reply_topic="home/summary")


def test_a_template_with_a_mistake_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="schedules: s: the template"):
        payload(prompt="{{ weather")


@pytest.mark.parametrize(
    "text", ["{{ 1 / 0 }}", "{{ now.nothing() }}", "{{ ''.__class__.__mro__ }}", "{{ 'x' * 9999999 }}"]
)
def test_a_template_that_fails_or_misbehaves_says_so(text):
    with pytest.raises(ValueError, match="the template of schedule s failed"):
        payload(prompt=text)
