"""The promise of `ai_task.py`: text, or data that the structure accepts, asked for twice at most."""

import probatio
import pytest
from board import golden
from conftest import make_entry
from homeassistant.components import ai_task
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import llm, selector

STRUCTURE = probatio.Schema(
    {
        probatio.Required("word"): selector.TextSelector(),
        probatio.Optional("degrees"): selector.NumberSelector({"mode": "box"}),
    }
)


@pytest.fixture
def generate(hass):
    """Start a task."""

    def start(instructions="describe", **more):
        return hass.async_create_task(
            ai_task.async_generate_data(
                hass, task_name="My task!", entity_id="ai_task.task", instructions=instructions, **more
            )
        )

    return start


async def test_a_task_gives_text(board, loaded, generate):
    task = generate()
    asked = await board.request()
    assert asked.body["priority"] == "normal"
    assert asked.body["max_tokens"] == 1024
    assert asked.body["messages"][-1] == {"role": "user", "content": "describe"}
    assert "response_format" not in asked.body
    asked.final("A text.")
    assert (await task).data == "A text."


async def test_a_task_may_wait_in_the_background(board, generate):
    assert await board.setup(make_entry(task={"priority": "background"}))
    task = generate()
    asked = await board.request()
    assert asked.body["priority"] == "background"
    asked.final("A text.")
    await task


async def test_structured_data_is_asked_for_and_checked(board, loaded, generate):
    task = generate(structure=STRUCTURE)
    asked = await board.request()
    wanted = asked.body["response_format"]
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["name"] == "My_task_"
    assert set(wanted["json_schema"]["schema"]["properties"]) == {"word", "degrees"}
    assert '"word"' in asked.body["messages"][0]["content"]
    asked.final('{"word": "sunny", "degrees": 21}')
    assert (await task).data == {"word": "sunny", "degrees": 21}


async def test_a_daemon_that_cannot_bind_a_schema_is_only_told_of_it(board, loaded, generate):
    board.come_up(features=["chat"])
    task = generate(structure=STRUCTURE)
    asked = await board.request()
    assert "response_format" not in asked.body
    asked.final('```json\n{"word": "sunny"}\n```')
    assert (await task).data == {"word": "sunny"}


@pytest.mark.parametrize("bad", ["no JSON", '{"degrees": 1}', '{"word": "a", "degrees": "b"}'])
async def test_data_that_does_not_fit_is_asked_for_once_more(board, loaded, generate, bad):
    task = generate(structure=STRUCTURE)
    (await board.request()).final(bad)
    again = await board.request(1)
    assert [m["role"] for m in again.body["messages"][-2:]] == ["assistant", "user"]
    assert "not valid" in again.body["messages"][-1]["content"]
    again.final('{"word": "sunny"}')
    assert (await task).data == {"word": "sunny"}


async def test_data_that_never_fits_is_an_error(board, loaded, generate):
    task = generate(structure=STRUCTURE)
    for number in range(2):
        (await board.request(number)).final("no JSON")
    with pytest.raises(HomeAssistantError, match="form"):
        await task


async def test_a_failure_is_an_error_also_after_the_first_words(board, loaded, generate):
    task = generate()
    asked = await board.request()
    asked.delta(0, "The ")
    board.say("status", "offline")
    with pytest.raises(HomeAssistantError, match="lost"):
        await task


async def test_a_refusal_of_the_daemon_is_an_error(board, loaded, generate):
    task = generate()
    (await board.request()).fail("model_error")
    with pytest.raises(HomeAssistantError, match="loaded"):
        await task


async def test_a_task_may_use_tools(hass, board, loaded, generate):
    api = next(api for api in llm.async_get_apis(hass) if api.id == llm.LLM_API_ASSIST)
    task = generate(structure=STRUCTURE, llm_api=api)
    asked = await board.request()
    assert "response_format" not in asked.body
    asked.call(("GetDateTime", {}))
    second = await board.request(1)
    assert second.body["messages"][-1]["role"] == "tool"
    second.final('{"word": "now"}')
    assert (await task).data == {"word": "now"}


async def test_an_attachment_is_refused_before_anything_is_sent(hass, board, loaded):
    with pytest.raises(HomeAssistantError):
        await ai_task.async_generate_data(
            hass,
            task_name="t",
            entity_id="ai_task.task",
            instructions="look",
            attachments=[{"media_content_id": "media-source://x/y"}],
        )
    assert board.published("request") == []


def test_the_golden_final_is_what_these_tests_send():
    assert golden("final")["status"] == "ok"
