"""The promise of `conversation.py` and `entity.py`: answers stream, tools are called, failures are said."""

import json

import pytest
from conftest import make_entry, speech
from custom_components.rkllm_mqtt import entity as entity_module
from custom_components.rkllm_mqtt.const import DOMAIN
from homeassistant.components import conversation
from homeassistant.components.conversation import trace
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import intent
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import async_mock_service


@pytest.fixture
def talker(loaded):
    """An agent that only talks."""
    return loaded


@pytest.fixture
async def helper_(hass, board):
    """An agent that controls devices, and a lamp."""
    assert await async_setup_component(hass, "intent", {})
    hass.states.async_set("light.lamp", "off", {"friendly_name": "Lamp"})
    async_expose_entity(hass, "conversation", "light.lamp", True)
    entry = make_entry(agent={"llm_hass_api": ["assist"]})
    assert await board.setup(entry)
    return entry


@pytest.fixture
def deltas(hass):
    """What the pipeline would hear."""
    heard = []

    async def listen(text, language="en"):
        from homeassistant.components.conversation import async_get_chat_log
        from homeassistant.core import Context
        from homeassistant.helpers.chat_session import async_get_chat_session

        user = conversation.ConversationInput(
            text=text,
            context=Context(),
            conversation_id=None,
            device_id=None,
            satellite_id=None,
            language=language,
            agent_id="conversation.agent",
        )
        with (
            async_get_chat_session(hass, None) as session,
            async_get_chat_log(
                hass, session, user, chat_log_delta_listener=lambda _, delta: heard.append(delta)
            ),
        ):
            return await conversation.async_converse(
                hass, text, session.conversation_id, Context(), language, agent_id="conversation.agent"
            )

    listen.heard = heard
    return listen


async def test_a_question_is_streamed_and_answered(board, talker, ask):
    task = ask("hello")
    asked = await board.request()
    assert asked.body["stream"] is True
    assert asked.body["priority"] == "interactive"
    assert asked.body["thinking"] is False
    assert asked.body["max_tokens"] == 400
    assert asked.body["messages"][-1] == {"role": "user", "content": "hello"}
    assert "tools" not in asked.body
    assert "model" not in asked.body
    asked.event("accepted")
    asked.event("started")
    asked.delta(0, "Good ")
    asked.delta(1, "morning.")
    asked.final("Good morning.", deltas=2)
    result = await task
    assert speech(result) == "Good morning."
    assert result.response.error_code is None
    assert board.published("cancel") == []


async def test_the_trace_of_a_conversation_tells_what_was_cached(board, talker, ask):
    task = ask("hello")
    (await board.request()).final("Good morning.")
    await task
    events = trace.async_get_traces()[-1].as_dict()["events"]
    stats = [event["data"]["stats"] for event in events if "stats" in (event["data"] or {})]
    assert stats == [{"input_tokens": 230, "cached_input_tokens": 210, "output_tokens": 21}]


async def test_every_piece_reaches_the_pipeline_when_it_comes(hass, board, talker, deltas):
    task = hass.async_create_task(deltas("hello"))
    asked = await board.request()
    asked.event("accepted", position=3)
    asked.delta(0, thinking="They greet.")
    asked.delta(1, "Good ")
    await board.until(lambda: {"content": "Good "} in deltas.heard)
    assert not task.done()
    asked.delta(2, "day.")
    asked.final("Good day.", thinking="They greet.")
    await task
    assert deltas.heard[0] == {"role": "assistant"}
    thoughts = "".join(delta.get("thinking_content", "") for delta in deltas.heard)
    assert thoughts == "Waiting at place 3 in the queue.\nThey greet."
    assert [delta["content"] for delta in deltas.heard if "content" in delta] == ["Good ", "day."]


async def test_the_settings_of_the_agent_are_sent(board, ask):
    entry = make_entry(
        agent={
            "model": "qwen3-1.7b",
            "temperature": 0.3,
            "max_tokens": 50,
            "thinking": True,
            "prompt": "Be brief.",
        }
    )
    assert await board.setup(entry)
    task = ask("hello")
    asked = await board.request()
    assert asked.body["model"] == "qwen3-1.7b"
    assert asked.body["temperature"] == 0.3
    assert asked.body["max_tokens"] == 50
    assert asked.body["thinking"] is True
    assert asked.body["messages"][0]["content"].startswith("Be brief.")
    asked.final("Yes.")
    await task


async def test_a_tool_is_called_and_its_result_answered(hass, board, helper_, ask):
    calls = async_mock_service(hass, "light", "turn_on")
    task = ask("turn on the lamp")
    first = await board.request()
    names = [tool["function"]["name"] for tool in first.body["tools"]]
    assert "intent__HassTurnOn" in names
    assert names == sorted(names, key=lambda name: ("Timer" in name, name))
    first.call(("HassTurnOn", {"name": "Lamp", "domain": "light", "area": None, "floor": ""}))
    second = await board.request(1)
    assert [call.data["entity_id"] for call in calls] == [["light.lamp"]]
    assistant, tool = second.body["messages"][-2:]
    assert assistant["tool_calls"][0]["function"]["name"] == "intent__HassTurnOn"
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {
        "name": "Lamp",
        "domain": ["light"],
    }
    assert tool["role"] == "tool"
    assert tool["tool_call_id"] == assistant["tool_calls"][0]["id"]
    assert second.body["messages"][:-2] == first.body["messages"]
    assert second.body["tools"] == first.body["tools"]
    second.final("The lamp is on.")
    assert speech(await task) == "The lamp is on."


async def test_two_tools_in_one_turn_are_both_called(hass, board, helper_, ask):
    on, off = async_mock_service(hass, "light", "turn_on"), async_mock_service(hass, "light", "turn_off")
    task = ask("blink")
    first = await board.request()
    first.delta(0, "One moment. ")
    lamp = {"name": "Lamp"}
    first.call(("intent__HassTurnOn", lamp), ("intent__HassTurnOff", lamp), text="One moment. ")
    second = await board.request(1)
    assert (len(on), len(off)) == (1, 1)
    assert [m["role"] for m in second.body["messages"][-3:]] == ["assistant", "tool", "tool"]
    second.final("Done.")
    assert speech(await task) == "Done."


async def test_an_unknown_tool_and_a_failing_one_are_told_to_the_model(board, helper_, ask):
    task = ask("fly")
    first = await board.request()
    first.call(("fly_away", "{broken"), ("intent__HassTurnOn", {"name": "Nothing"}))
    second = await board.request(1)
    results = [json.loads(m["content"]) for m in second.body["messages"] if m["role"] == "tool"]
    assert len(results) == 2
    assert all("error" in result for result in results)
    second.final("I cannot fly.")
    assert speech(await task) == "I cannot fly."


async def test_a_model_that_calls_tools_without_end_is_stopped(monkeypatch, board, helper_, ask):
    monkeypatch.setattr(entity_module, "MAX_ROUNDS", 2)
    task = ask("loop")
    for number in range(2):
        (await board.request(number)).call(("fly", {}))
    result = await task
    assert result.response.error_code == intent.IntentResponseErrorCode.FAILED_TO_HANDLE
    assert "without end" in speech(result)


async def test_calls_with_the_same_id_get_ids_of_their_own(board, helper_, ask):
    task = ask("twice")
    for number in range(2):
        asked = await board.request(number)
        call = {"id": "call_0", "type": "function", "function": {"name": "fly", "arguments": "{}"}}
        asked.final("", tool_calls=[call, call], finish_reason="tool_calls")
    third = await board.request(2)
    ids = [call["id"] for m in third.body["messages"] for call in m.get("tool_calls", [])]
    assert len(ids) == len(set(ids)) == 4
    third.final("Done.")
    await task


async def test_an_agent_without_tools_ignores_calls(board, talker, ask):
    task = ask("hello")
    (await board.request()).call(("fly", {}), text="Hello.")
    assert speech(await task) == "Hello."


async def test_a_model_that_says_nothing_is_not_passed_over_in_silence(board, talker, ask):
    task = ask("hello")
    (await board.request()).final("", thinking="Hm.")
    assert "no answer" in speech(await task)


@pytest.mark.parametrize(
    ("language", "start"),
    [("en", "Sorry"), ("de", "Entschuldigung"), ("pl", "Przepraszam"), ("zh-Hans", "抱歉")],
)
async def test_a_failure_is_said_in_the_language_of_the_question(board, talker, ask, language, start):
    task = ask("hello", language=language)
    (await board.request()).fail("queue_full")
    result = await task
    assert result.response.error_code == intent.IntentResponseErrorCode.FAILED_TO_HANDLE
    assert speech(result).startswith(start)


async def test_an_error_without_a_sentence_of_its_own_quotes_the_daemon(board, talker, ask):
    task = ask("hello")
    (await board.request()).fail("too_large")
    assert "too_large" in speech(await task)


async def test_an_answer_that_breaks_off_says_so_in_the_stream(hass, board, talker, deltas):
    task = hass.async_create_task(deltas("hello"))
    asked = await board.request()
    asked.delta(0, "The lamp is")
    await board.until(lambda: {"content": "The lamp is"} in deltas.heard)
    board.say("status", "offline")
    result = await task
    assert deltas.heard[-1]["content"].startswith(" … Sorry")
    assert result.response.error_code == intent.IntentResponseErrorCode.FAILED_TO_HANDLE
    assert speech(result).startswith("The lamp is … Sorry")


async def test_history_keeps_whole_turns_and_forgets_failed_ones(board, talker, ask):
    task = ask("first")
    (await board.request()).final("one")
    conversation_id = (await task).conversation_id
    task = ask("second", conversation_id)
    (await board.request(1)).fail("slot_failed")
    await task
    task = ask("third", conversation_id)
    asked = await board.request(2)
    said = [(m["role"], m["content"]) for m in asked.body["messages"] if m["role"] != "system"]
    assert said == [("user", "first"), ("assistant", "one"), ("user", "third")]
    asked.final("three")
    await task


async def test_an_agent_that_remembers_nothing_sends_the_question_only(board, ask):
    assert await board.setup(make_entry(agent={"history_turns": 0}))
    task = ask("first")
    (await board.request()).final("one")
    task = ask("second", (await task).conversation_id)
    asked = await board.request(1)
    assert [m["content"] for m in asked.body["messages"] if m["role"] != "system"] == ["second"]
    asked.final("two")
    await task


async def test_a_daemon_without_tools_is_not_sent_any(board, helper_, ask):
    board.come_up(features=["chat", "stream"])
    result = await ask("turn on the lamp")
    assert "too old" in speech(result)
    assert board.published("request") == []


async def test_a_prompt_that_the_daemon_refuses_as_too_long_raises_an_issue(hass, board, helper_, ask):
    task = ask("hello")
    (await board.request()).fail("context_overflow")
    assert "too long" in speech(await task)
    (issue,) = [i for (domain, _), i in ir.async_get(hass).issues.items() if domain == DOMAIN]
    assert issue.translation_key == "prompt_over_context"
    assert int(issue.translation_placeholders["prompt_tokens"]) > 50
    assert "intent__" in issue.translation_placeholders["largest"]
    task = ask("hello")
    (await board.request(1)).final("Hello.")
    await task
    assert not [key for key in ir.async_get(hass).issues if key[0] == DOMAIN]


async def test_a_prompt_that_cannot_fit_raises_an_issue_before_the_daemon_says_so(hass, board, ask):
    assert await board.setup(make_entry(agent={"prompt": "word " * 4000}))
    task = ask("hello")
    (await board.request()).final("Hello.")
    await task
    assert [i.translation_key for (d, _), i in ir.async_get(hass).issues.items() if d == DOMAIN] == [
        "prompt_over_context"
    ]


async def test_an_api_that_is_gone_is_an_error_of_the_conversation(board, ask):
    assert await board.setup(make_entry(agent={"llm_hass_api": ["gone"]}))
    result = await ask("hello")
    assert result.response.error_code == intent.IntentResponseErrorCode.UNKNOWN
    assert board.published("request") == []


async def test_the_agent_says_what_it_can(hass, board, helper_):
    state = hass.states.get("conversation.agent")
    assert state.attributes["supported_features"] == conversation.ConversationEntityFeature.CONTROL
    agent = conversation.async_get_agent(hass, "conversation.agent")
    assert agent.supported_languages == "*"
    assert agent.supports_streaming
    assert er.async_get(hass).async_get("conversation.agent").unique_id


async def test_the_agent_is_unavailable_with_the_daemon(hass, board, talker, ask):
    board.say("status", "offline")
    await hass.async_block_till_done()
    assert hass.states.get("conversation.agent").state == "unavailable"
    assert "offline" in speech(await ask("hello"))
    board.say("status", "online")
    await hass.async_block_till_done()
    assert hass.states.get("conversation.agent").state != "unavailable"
