"""The promise of `recurring/values.py`: the newest message of the topics that were named, and of no other."""

from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.recurring.service import _message
from rkllm_mqtt.recurring.values import VALUE_BYTES, Values


def message(topic, payload):
    made = _message(Mailbox("rkllm", "rock", "c"), "q", payload, None)
    return type(made)(**{name: getattr(made, name) for name in made.__slots__} | {"topic": topic})


def test_the_newest_message_of_a_named_topic_is_kept_and_an_empty_one_takes_it_back():
    values = Values(["home/weather", "home/calendar"])
    assert values.topics == ["home/weather", "home/calendar"]
    assert values.text("home/weather") is None
    assert values.take(message("home/weather", b"rain"))
    assert values.take(message("home/weather", b"sun"))
    assert values.text("home/weather") == "sun"
    assert values.take(message("home/weather", b""))
    assert values.text("home/weather") is None


def test_other_topics_are_left_to_others():
    assert not Values(["home/weather"]).take(message("home/other", b"x"))


def test_a_message_is_cut_on_a_character_and_holds_no_nul():
    values = Values(["t"])
    values.take(message("t", b"\0a" + "ż".encode() * VALUE_BYTES))
    assert len(values.text("t").encode()) <= VALUE_BYTES
    assert values.text("t").startswith("ażż")
    values.take(message("t", b"\xff\xfeok"))
    assert values.text("t") == "ok"
