"""What a person hears when something breaks, and that it works again afterwards."""

import time


async def ask_until_it_speaks(house, text):
    """Begin a question; return it once its first words were heard."""
    stream = house.run(text)
    events = []
    async for event in stream:
        events.append(event)
        if event["type"] == "intent-progress" and event["data"].get("chat_log_delta", {}).get("content"):
            break
    return stream, events


async def works_again(house):
    async def answered():
        heard = await house.ask("say: here again")
        return heard.speech == "here again"

    await house.until(answered)


async def test_the_daemon_is_killed_in_mid_answer(house, agent, daemon, watcher):
    stream, _ = await ask_until_it_speaks(house, "Tell me a story of 2000 words")
    seen = len(watcher.messages)
    daemon.kill()
    began = time.monotonic()
    rest = [event async for event in stream]
    # The will is due after 5 s, and mosquitto looks once a second whether a later one has begun: 5 to 6 s.
    assert time.monotonic() - began < 6.5
    (end,) = [event for event in rest if event["type"] == "intent-end"]
    response = end["data"]["intent_output"]["response"]
    assert response["response_type"] == "error"
    assert "Sorry" in response["speech"]["plain"]["speech"]
    told = [e["data"]["chat_log_delta"].get("content") for e in rest if e["type"] == "intent-progress"]
    assert any("Sorry" in (content or "") for content in told), "said in the stream that is spoken"
    daemon.start(watcher)
    await house.until(lambda: a_cancel(watcher, seen))
    await works_again(house)


async def a_cancel(watcher, seen):
    return any("/client/homeassistant/cancel/" in m.topic for m in watcher.messages[seen:])


async def test_the_broker_is_restarted(house, agent, broker, watcher):
    stream, _ = await ask_until_it_speaks(house, "Tell me a story of 2000 words")
    broker.stop()
    rest = [event async for event in stream]
    assert any("Sorry" in str(event["data"]) for event in rest)
    heard = await house.ask("hello")
    assert heard.error
    assert "broker" in heard.speech
    broker.start()
    await works_again(house)
