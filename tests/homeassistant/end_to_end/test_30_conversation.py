"""Asking the agent, as the Assist dialog does."""

import time

import pytest

BOX = "rkllm/board/client/homeassistant"
LAMP = "light.kitchen_lamp"


async def test_an_answer_streams(house, agent):
    heard = await house.ask("Tell me a story of 60 words")
    assert heard.error is None, heard.speech
    assert len(heard.pieces) > 5
    assert "".join(heard.pieces) == heard.speech
    assert len(heard.speech.split()) >= 50


async def test_the_kitchen_lamp_is_switched_on_and_the_answer_streams(house, agent):
    await house.service("light.turn_off", entity_id=LAMP)
    heard = await house.ask("turn on the Kitchen Lamp")
    assert heard.error is None, heard.speech
    assert await house.state(LAMP) == "on"
    assert [call["tool_name"] for call in heard.calls] == ["intent__HassTurnOn"]
    assert heard.pieces
    assert "tool_call" not in heard.speech


async def test_a_second_turn_and_a_second_conversation_find_their_prefix_computed(house, agent, watcher):
    first = await house.ask("hello")
    seen = len(watcher.messages)
    second = await house.ask("say: good evening", first.conversation_id)
    assert second.conversation_id == first.conversation_id
    other = await house.ask("say: another conversation")
    assert other.conversation_id != first.conversation_id
    later = answers(watcher, seen)
    assert len(later) == 2
    for final in later:
        assert_the_prefix_was_cached(watcher, final)


def answers(watcher, seen):
    """Return the finals of questions, without those of prefixes."""
    finals = [m.json for m in watcher.messages[seen:] if m.topic.startswith(f"{BOX}/reply/")]
    return [final for final in finals if "prefix" not in final]


def assert_the_prefix_was_cached(watcher, final):
    """Nothing was computed of instructions, entities and tools: only what comes behind them."""
    (request,) = [m.json for m in watcher.messages if m.topic == f"{BOX}/request/{final['id']}" and m.payload]
    behind = sum(len(message["content"] or "") for message in request["messages"][1:])
    usage = final["usage"]
    assert usage["prompt_tokens"] > 500
    # A token has three characters and more; each message has a header.
    assert usage["prompt_tokens"] - usage["cached_tokens"] <= behind / 3 + 8 * len(request["messages"]), usage


async def test_a_satellite_that_listens_gets_the_registered_prefix_after_foreign_work(house, agent, watcher):
    def requests(member):
        sent = [m.json for m in watcher.messages if m.topic.startswith(f"{BOX}/request/") and m.payload]
        return [body for body in sent if member in body]

    await house.ask("say: what is exposed by now")

    async def registered():
        known, asked = requests("register"), requests("stream")
        return known and known[-1]["messages"][0] == asked[-1]["messages"][0]

    await house.until(registered)
    other = "rkllm/board/client/other"
    watcher.publish(f"{other}/request/foreign", {"prompt": "something else " * 200 + "say: done"})
    assert watcher.reply(f"{other}/reply/foreign").json["text"] == "done"
    seen = len(watcher.messages)
    for state in ("idle", "listening"):
        await house.post("/api/states/assist_satellite.kitchen", {"state": state})

    async def warm():
        finals = [m.json for m in watcher.messages[seen:] if m.topic.startswith(f"{BOX}/reply/")]
        return any(final.get("prefix", {}).get("state") == "warm" for final in finals)

    await house.until(warm)
    assert requests("warm")[-1]["hold_s"] == 6
    heard = await house.ask("say: at once")
    assert heard.speech == "at once"
    assert_the_prefix_was_cached(watcher, answers(watcher, seen)[-1])


async def test_closing_the_dialog_frees_the_slot(house, agent, watcher, capsys):
    number = await house.begin("Tell me a story of 2000 words")
    while (await house.socket.next(number)).get("event", {}).get("type") != "intent-progress":
        pass
    seen = len(watcher.messages)
    began = time.monotonic()
    await house.socket.call("unsubscribe_events", subscription=number)
    final = await house.until(lambda: cancelled(watcher, seen))
    (cancel,) = [m for m in watcher.messages[seen:] if m.topic.startswith(f"{BOX}/cancel/")]
    with capsys.disabled():
        print(f"\ndialog closed to slot free: {1000 * (final.at - began):.0f} ms", end="")
        print(f", of which the daemon {1000 * (final.at - cancel.at):.0f} ms")
    assert final.at - cancel.at < 0.3
    after = await house.ask("say: still here")
    assert after.speech == "still here"


async def cancelled(watcher, seen):
    found = (m for m in watcher.messages[seen:] if m.topic.startswith(f"{BOX}/reply/"))
    return next((m for m in found if m.json["finish_reason"] == "cancelled"), None)


@pytest.mark.parametrize("text", ["", "   "])
async def test_an_empty_question_breaks_nothing(house, agent, text):
    heard = await house.ask(text)
    assert heard.speech or heard.error


async def said_with(watcher, seen, text):
    """Return the final with this text: another's may come late."""
    return next((final for final in answers(watcher, seen) if final["text"] == text), None)


async def test_thirty_turns_cost_little_on_the_way(house, agent, watcher, capsys):
    added = []
    for number in range(30):
        seen = len(watcher.messages)
        heard = await house.ask(f"say: answer {number}")
        assert heard.speech == f"answer {number}"
        final = await house.until(lambda seen=seen, said=heard.speech: said_with(watcher, seen, said))
        timing = final["timing"]
        assert timing["prefill_ms"] is not None, timing
        added.append(1000 * heard.first_s - timing["prefill_ms"])
    added.sort()
    with capsys.disabled():
        print(f"\npath overhead to the first word: p50 {added[15]:.1f} ms, p90 {added[27]:.1f} ms, 30 turns")
