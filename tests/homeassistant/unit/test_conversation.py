"""The promise of `conversation.py`: the answer streams, and a failure is said, in the asker's language."""

from conftest import speech
from homeassistant.components.conversation import ConversationEntityFeature  # noqa: F401


async def test_a_question_is_streamed_and_answered(hass, board, loaded, ask):
    task = ask("hello")
    asked = await board.request()
    assert asked.body["stream"] is True
    assert asked.body["priority"] == "interactive"
    assert asked.body["messages"][-1] == {"role": "user", "content": "hello"}
    assert "tools" not in asked.body
    asked.event("accepted")
    asked.event("started")
    asked.delta(0, "Good ")
    asked.delta(1, "morning.")
    asked.final("Good morning.", deltas=2)
    result = await task
    assert speech(result) == "Good morning."
    assert result.response.error_code is None
    assert board.published("cancel") == []


async def test_a_failure_is_said_in_the_language_of_the_question(hass, board, loaded, ask):
    task = ask("hallo", language="de")
    asked = await board.request()
    asked.fail("queue_full")
    result = await task
    assert result.response.error_code == "failed_to_handle"
    assert speech(result).startswith("Entschuldigung")
