"""Agents of other models and larger homes, added by their flows."""

import json

import pytest


@pytest.fixture(scope="session")
async def entry(house, agent):
    (entry,) = await house.socket.call("config_entries/get", domain="rkllm_mqtt")
    return entry["entry_id"]


async def add_agent(house, entry, **settings):
    """Add an agent; return its entity."""
    before = await house.entities("rkllm_mqtt")
    path = "/api/config/config_entries/subentries/flow"
    form = await house.post(path, {"handler": [entry, "conversation"], "show_advanced_options": True})
    defaults = {"tools": "all", "history_turns": 8, "max_tokens": 400, "llm_hass_api": ["assist"]}
    result = await house.post(f"{path}/{form['flow_id']}", defaults | settings)
    assert result["type"] == "create_entry", result

    async def added():
        found = (await house.entities("rkllm_mqtt")).keys() - before.keys()
        return next((each for each in found if each.startswith("conversation.")), None)

    name = await house.until(added)

    async def available():
        return await house.state(name) not in (None, "unavailable")

    await house.until(available)
    return name


async def process(house, agent, text):
    answer = await house.post(
        "/api/conversation/process", {"text": text, "agent_id": agent, "language": "en"}
    )
    return answer["response"]["speech"]["plain"]["speech"]


async def test_two_tools_are_called_in_one_turn_and_states_are_asked_for(house, entry):
    lamps = ("light.kitchen_lamp", "light.bedroom_lamp")
    for lamp in lamps:
        await house.service("light.turn_off", entity_id=lamp)
    agent = await add_agent(house, entry, name="Calls", model="calls")
    said = await process(house, agent, "both lamps, please")
    for lamp in lamps:
        assert await house.state(lamp) == "on", said
    said = await process(house, agent, "which lamps are on?")
    assert "Kitchen Lamp" in said


async def test_a_home_of_many_entities_fits_a_small_model_with_the_control_tools(house, entry, watcher):
    exposed = (await house.socket.call("homeassistant/expose_entity/list"))["exposed_entities"]
    states = [state["entity_id"] for state in await house.get("/api/states")]
    kinds = ("light", "switch", "cover", "climate", "fan", "lock", "media_player", "vacuum", "sensor", "todo")
    many = [each for each in states if each.split(".")[0] in kinds and "rkllm" not in each][:47]
    assert len(many) == 47
    await house.expose(many, exposed=True)
    path = "/api/config/config_entries/subentries/flow"
    form = await house.post(path, {"handler": [entry, "conversation"], "show_advanced_options": True})
    numbers = {key: int(value) for key, value in form["description_placeholders"].items()}
    print(f"\n47 entities: {json.dumps(numbers)}")
    assert numbers["all_tools"] > 20
    assert numbers["all_tokens"] > numbers["control_tokens"]
    assert numbers["control_tokens"] + 400 < 4096
    small = await add_agent(house, entry, name="Small", model="small", tools="control")
    await house.service("light.turn_off", entity_id="light.kitchen_lamp")
    await process(house, small, "turn on the Kitchen Lamp")
    assert await house.state("light.kitchen_lamp") == "on"
    issues = (await house.socket.call("repairs/list_issues"))["issues"]
    assert not [issue for issue in issues if issue["domain"] == "rkllm_mqtt"]
    del exposed


async def test_a_prompt_that_overflows_is_said_and_becomes_an_issue(house, entry):
    large = await add_agent(house, entry, name="Large", model="small", prompt="Be kind. " * 2000)
    said = await process(house, large, "hello")
    assert "too long" in said
    issues = (await house.socket.call("repairs/list_issues"))["issues"]
    assert "prompt_over_context" in {issue["translation_key"] for issue in issues}
