"""The promise of `prefixes.py`: the daemon has each agent's prefix as questions begin, warm for a voice."""

import pytest
from board import golden
from conftest import make_entry
from custom_components.rkllm_mqtt import exposure
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component

SATELLITE = "assist_satellite.kitchen"


@pytest.fixture(autouse=True)
async def _able(hass, board, monkeypatch):
    """A daemon that keeps prefixes, and no waiting."""
    monkeypatch.setattr(exposure, "COOLDOWN_S", 0.01)
    board.info["features"] = [*board.info["features"], "prefixes", "warm"]
    assert await async_setup_component(hass, "intent", {})
    hass.states.async_set("light.lamp", "off", {"friendly_name": "Lamp"})
    async_expose_entity(hass, "conversation", "light.lamp", True)


@pytest.fixture
async def controlling(board):
    """The entry of an agent that controls, set up."""
    entry = make_entry(agent={"llm_hass_api": ["assist"]})
    assert await board.setup(entry)
    return entry


def told(board, member):
    return [body for _, body in board.published("request") if member in body]


async def registered(board, number=0):
    await board.until(lambda: len(told(board, "register")) > number)
    return told(board, "register")[number]


def agent_id(entry):
    return next(key for key, each in entry.subentries.items() if each.subentry_type == "conversation")


async def test_what_is_registered_begins_every_question_byte_for_byte(board, controlling, ask):
    body = await registered(board)
    assert body["register"] == agent_id(controlling)
    task = ask("turn it on")
    await board.until(lambda: told(board, "stream"))
    request = told(board, "stream")[0]
    assert request["messages"][0] == body["messages"][0]
    assert "Lamp" in body["messages"][0]["content"]
    assert request["tools"][: len(body["tools"])] == body["tools"]
    assert len(body["messages"]) == 1
    number = next(n for n, (_, sent) in enumerate(board.published("request")) if "stream" in sent)
    (await board.request(number)).final("Done.")
    await task
    assert len(told(board, "register")) == 1, "nothing has changed"


async def test_an_agent_that_only_talks_has_no_clock_in_its_prefix(board, loaded):
    body = await registered(board)
    assert "Current time" not in body["messages"][0]["content"]
    assert "tools" not in body


async def test_more_exposed_entities_are_registered_once_for_all(hass, board, controlling):
    await registered(board)
    for number in range(5):
        hass.states.async_set(f"sensor.new_{number}", "off", {"friendly_name": f"New {number}"})
        async_expose_entity(hass, "conversation", f"sensor.new_{number}", True)
    body = await registered(board, 1)
    assert "New 0" in body["messages"][0]["content"]
    assert "New 4" in body["messages"][0]["content"]
    assert len(told(board, "register")) == 2


async def test_a_new_light_is_registered_though_it_is_exposed_without_a_word(hass, board, controlling):
    await registered(board)
    lamp = er.async_get(hass).async_get_or_create("light", "demo", "1", original_name="Brand new")
    hass.states.async_set(lamp.entity_id, "off", {"friendly_name": "Brand new"})
    assert "Brand new" in (await registered(board, 1))["messages"][0]["content"]


async def test_a_daemon_that_was_restarted_is_told_again(hass, board, controlling):
    await registered(board)
    board.come_up(boot_id="another")
    await registered(board, 1)


async def test_a_new_name_is_noticed_with_the_next_question(hass, board, controlling, ask):
    await registered(board)
    hass.states.async_set("light.lamp", "off", {"friendly_name": "Renamed"})
    task = ask("turn it on")
    await board.until(lambda: told(board, "stream"))
    number = next(n for n, (_, sent) in enumerate(board.published("request")) if "stream" in sent)
    (await board.request(number)).final("Done.")
    await task
    assert "Renamed" in (await registered(board, 1))["messages"][0]["content"]


async def test_a_daemon_that_keeps_no_prefixes_is_not_asked_to(hass, board):
    board.info["features"] = ["chat", "tools"]
    assert await board.setup(make_entry(agent={"llm_hass_api": ["assist"]}))
    hass.states.async_set(SATELLITE, "listening")
    await hass.async_block_till_done(wait_background_tasks=True)
    assert board.published("request") == []


@pytest.fixture
async def pipeline(hass, board, controlling):
    """Our agent is the preferred pipeline's, and its prefix is registered."""
    from homeassistant.components import assist_pipeline

    assert await async_setup_component(hass, "assist_pipeline", {})
    preferred = assist_pipeline.async_get_pipeline(hass)
    await assist_pipeline.async_update_pipeline(hass, preferred, conversation_engine="conversation.agent")
    await registered(board)
    return preferred


async def listen(hass, state="listening"):
    hass.states.async_set(SATELLITE, "idle")
    hass.states.async_set(SATELLITE, state)
    await hass.async_block_till_done(wait_background_tasks=True)


async def test_a_satellite_that_begins_to_listen_warms_its_agent(hass, board, controlling, pipeline):
    await listen(hass)
    assert told(board, "warm") == [{"warm": agent_id(controlling), "hold_s": 6}]
    hass.states.async_set(SATELLITE, "listening", {"new": "attribute"})
    await listen(hass, "responding")
    assert len(told(board, "warm")) == 1


async def test_a_satellite_of_another_agent_warms_nothing(hass, board, controlling, pipeline):
    from homeassistant.components import assist_pipeline

    await assist_pipeline.async_update_pipeline(
        hass, pipeline, conversation_engine="conversation.home_assistant"
    )
    await listen(hass)
    assert told(board, "warm") == []


async def test_without_voice_pipelines_nothing_is_warmed(hass, board, controlling):
    await registered(board)
    await listen(hass)
    assert told(board, "warm") == []


@pytest.mark.parametrize(("state", "warmed"), [("preferred", True), ("Another", False)])
async def test_the_assistant_that_the_satellite_has_chosen_counts(
    hass, board, controlling, pipeline, state, warmed
):
    from homeassistant.components import assist_pipeline
    from homeassistant.helpers import device_registry as dr

    await assist_pipeline.pipeline.async_create_default_pipeline(hass, "x", "y", "Another")
    devices, entities = dr.async_get(hass), er.async_get(hass)
    device = devices.async_get_or_create(config_entry_id=controlling.entry_id, identifiers={("voice", "1")})
    entities.async_get_or_create(
        "assist_satellite", "voice", "s", suggested_object_id="kitchen", device_id=device.id
    )
    chosen = entities.async_get_or_create(
        "select", "voice", "p", device_id=device.id, translation_key="pipeline"
    )
    hass.states.async_set(chosen.entity_id, state)
    pipelines = {each.name for each in assist_pipeline.async_get_pipelines(hass)}
    if state == "Another" and state not in pipelines:
        store = hass.data[assist_pipeline.pipeline.KEY_ASSIST_PIPELINE].pipeline_store
        other = assist_pipeline.async_get_pipeline(hass).to_json() | {
            "name": "Another",
            "conversation_engine": "conversation.home_assistant",
        }
        other.pop("id")
        await store.async_create_item(other)
    await listen(hass)
    assert bool(told(board, "warm")) == warmed


async def test_a_prefix_that_the_daemon_has_forgotten_is_registered_again(hass, board, controlling, pipeline):
    await listen(hass)
    (warm_id,) = [key for key, body in board.published("request") if "warm" in body]
    board.say(f"client/homeassistant/reply/{warm_id}", golden("error") | {"id": warm_id})
    await registered(board, 1)


async def test_a_prefix_that_was_refused_is_not_warmed_and_not_sent_again(hass, board, controlling, pipeline):
    (first_id,) = [key for key, body in board.published("request") if "register" in body]
    board.say(f"client/homeassistant/reply/{first_id}", golden("error") | {"id": first_id})
    await listen(hass)
    assert told(board, "warm") == []
    assert len(told(board, "register")) == 1


async def test_answers_to_what_nobody_waits_for_are_not_counted_as_strange(hass, board, controlling):
    await registered(board)
    (first_id,) = [key for key, body in board.published("request") if "register" in body]
    board.say(f"client/homeassistant/event/{first_id}", golden("accepted") | {"id": first_id})
    board.say(f"client/homeassistant/reply/{first_id}", golden("final") | {"id": first_id})
    await hass.async_block_till_done()
    assert controlling.runtime_data.counters.unknown_ids == 0
    board.say(f"client/homeassistant/reply/{first_id}", golden("final") | {"id": first_id})
    await hass.async_block_till_done()
    assert controlling.runtime_data.counters.unknown_ids == 1


async def test_the_prefix_of_a_removed_agent_is_taken_back(hass, board, controlling):
    await registered(board)
    agent = agent_id(controlling)
    hass.config_entries.async_remove_subentry(controlling, agent)
    await board.until(lambda: told(board, "unregister"))
    assert told(board, "unregister") == [{"unregister": agent}]
    board.come_up()  # the entry is loaded again
    await hass.async_block_till_done()


async def test_a_removed_entry_takes_its_prefixes_back_and_a_reloaded_one_keeps_them(
    hass, board, controlling
):
    await registered(board)
    assert await hass.config_entries.async_unload(controlling.entry_id)
    assert told(board, "unregister") == []
    await hass.config_entries.async_remove(controlling.entry_id)
    assert told(board, "unregister") == [{"unregister": agent_id(controlling)}]


async def test_a_removal_without_a_broker_takes_nothing_back(hass, board, controlling, monkeypatch):
    monkeypatch.setattr("homeassistant.components.mqtt.is_connected", lambda _: False)
    await hass.config_entries.async_remove(controlling.entry_id)
    assert told(board, "unregister") == []


async def test_the_longest_prefix_is_registered_first(hass, board):
    entry = make_entry(agent={"prompt": "Talk."})
    longer = {"llm_hass_api": ["assist"], "prompt": "Be kind."}
    both = [*entry.subentries.values(), *make_entry(agent=longer).subentries.values()]
    agents = [each for each in both if each.subentry_type == "conversation"]
    entry.add_to_hass(hass)
    hass.config_entries.async_add_subentry(entry, agents[1])
    assert await board.setup(entry)
    await registered(board, 1)
    assert [body["register"] for body in told(board, "register")] == [
        each.subentry_id for each in agents[::-1]
    ]
