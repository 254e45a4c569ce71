"""A device with MicroPython and umqtt.simple: MQTT 3.1.1, persistent session, text in, text out."""

import uuid

import pytest

pytestmark = pytest.mark.clients


@pytest.fixture
def client_id() -> str:
    """A name for a session that the broker has not kept yet."""
    return f"device-{uuid.uuid4().hex[:8]}"


def test_a_device_gets_the_bare_text_of_each_of_its_prompts(micropython, served, client_id):
    assert micropython(client_id, served[1], "talk", "open the windów", "and close it") == [
        "You said: open the windów",
        "You said: and close it",
    ]


def test_a_device_that_asks_the_same_again_is_answered_again(micropython, served, client_id):
    """Its packet ids begin at 1 on each connection: they prove no repeat."""
    for _ in range(2):
        assert micropython(client_id, served[1], "talk", "temperature?") == ["You said: temperature?"]


def test_a_device_that_slept_through_its_answer_gets_it_when_it_wakes(micropython, served, client_id):
    watcher, box = served
    assert micropython(client_id, box, "ask", "story 30 tokens") == []
    answer = watcher.reply(f"{box}/reply").payload.decode()
    assert len(answer) > 100
    assert micropython(client_id, box, "fetch") == ["session kept", answer]


def test_a_device_that_waits_is_told_of_a_refusal_as_text(micropython, served, client_id):
    (answer,) = micropython(client_id, served[1], "talk", "word " * 20_000)
    assert answer.startswith("ERROR context_overflow: ")
