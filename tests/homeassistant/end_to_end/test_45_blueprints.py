"""The blueprints, made into automations and run by Home Assistant."""

import shutil

import pytest
from house import ROOT

FOLDER = ROOT / "homeassistant" / "blueprints" / "automation" / "rkllm_mqtt"
NAMES = sorted(path.name for path in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="session")
def shelf(house):
    """Put the blueprints where a person puts them."""
    shutil.copytree(FOLDER, house.folder / "config" / "blueprints" / "automation" / "rkllm_mqtt")


async def automate(house, name, **inputs):
    """Make an automation of a blueprint; return its entity."""
    key = name.removesuffix(".yaml")
    body = {"alias": key, "use_blueprint": {"path": f"rkllm_mqtt/{name}", "input": inputs}}
    await house.post(f"/api/config/automation/config/{key}", body)

    async def there():
        return await house.state(f"automation.{key}")

    assert await house.until(there) == "on"
    return f"automation.{key}"


async def notified(house, title):
    async def there():
        found = await house.socket.call("persistent_notification/get")
        return next((each["message"] for each in found if each["title"] == title), None)

    return await house.until(there)


async def test_home_assistant_takes_every_blueprint(house, shelf):
    listed = await house.socket.call("blueprint/list", domain="automation")
    ours = {path: each for path, each in listed.items() if path.startswith("rkllm_mqtt/")}
    assert {path.split("/")[1] for path in ours} == set(NAMES)
    assert not [each for each in ours.values() if "error" in each]


async def test_the_morning_is_summed_up(house, agent, shelf):
    task = await house.entity("rkllm_mqtt", "ai_task")
    inputs = {"task": task, "entities": ["weather.demo_weather_south"], "instructions": "say: Sunny. Facts:"}
    automation = await automate(house, "morning_summary.yaml", **inputs)
    await house.service("automation.trigger", entity_id=automation)
    assert "Sunny" in await notified(house, "Good morning")


async def test_a_sensor_is_asked_about(house, agent, shelf):
    task = await house.entity("rkllm_mqtt", "ai_task")
    relay = "input_boolean.bedroom_lamp_relay"
    inputs = {"task": task, "sensor": relay, "question": "Is the relay unusual?"}
    await automate(house, "ask_about_sensor.yaml", **inputs)
    await house.service("input_boolean.toggle", entity_id=relay)
    assert await notified(house, "Something needs attention") == "It was switched."


async def test_the_house_is_summed_up_in_the_background(house, agent, shelf):
    task = await house.entity("rkllm_mqtt", "ai_task")
    automation = await automate(
        house, "background_summary.yaml", task=task, entities=["light.kitchen_lamp", "light.bedroom_lamp"]
    )
    await house.service("automation.trigger", entity_id=automation)
    assert await notified(house, "How the house is")


async def test_an_answer_is_spoken_on_a_speaker(house, agent, shelf):
    states = [state["entity_id"] for state in await house.get("/api/states")]
    answer = next(each for each in states if each.startswith("event.rkllm_board"))
    prompt = next(each for each in states if each.startswith("notify.rkllm_board"))
    voice = next(each for each in states if each.startswith("tts."))
    speaker = "media_player.walkman"
    await automate(house, "announce_answer.yaml", answer=answer, voice=voice, speaker=speaker)
    number = await house.socket.send("subscribe_events", event_type="call_service")
    await house.service("notify.send_message", entity_id=prompt, message="say: The washing is done.")
    while True:
        called = (await house.socket.next(number)).get("event", {}).get("data", {})
        if called.get("service") == "speak":
            break
    assert called["service_data"]["message"] == "The washing is done."
    assert called["service_data"]["media_player_entity_id"] in (speaker, [speaker])


async def test_they_are_switched_off_again(house, shelf):
    # The one about a sensor would ask at each lamp that later tests switch.
    names = [state["entity_id"] for state in await house.get("/api/states")]
    ours = [name for name in names if name.startswith("automation.")]
    await house.service("automation.turn_off", entity_id=ours)
    for name in ours:
        assert await house.state(name) == "off"
