"""The promise of `subentry_flow.py`: agents and tasks are added and changed, with the budget in sight."""

import pytest
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.config_entries import ConfigEntryState
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.setup import async_setup_component


async def add(hass, entry, kind):
    return await hass.config_entries.subentries.async_init((entry.entry_id, kind), context={"source": "user"})


async def answer(hass, flow, **values):
    return await hass.config_entries.subentries.async_configure(flow["flow_id"], values)


def subentry(entry, kind):
    return next(each for each in entry.subentries.values() if each.subentry_type == kind)


async def test_an_agent_is_added(hass, board, loaded):
    flow = await add(hass, loaded, "conversation")
    assert flow["type"] is FlowResultType.FORM
    result = await answer(
        hass,
        flow,
        name="Chat",
        prompt="Be brief.",
        tools="all",
        history_turns=3,
        max_tokens=100,
        thinking=True,
    )
    assert result["type"] is FlowResultType.CREATE_ENTRY
    board.come_up()
    added = next(each for each in loaded.subentries.values() if each.title == "Chat")
    assert added.data["prompt"] == "Be brief."
    assert added.data["history_turns"] == 3
    assert "llm_hass_api" not in added.data


async def test_the_form_shows_what_the_prompt_costs(hass, board, loaded):
    assert await async_setup_component(hass, "intent", {})
    for number in range(20):
        hass.states.async_set(f"light.lamp_{number}", "off", {"friendly_name": f"Lamp {number}"})
        async_expose_entity(hass, "conversation", f"light.lamp_{number}", True)
    flow = await add(hass, loaded, "conversation")
    numbers = {key: int(value) for key, value in flow["description_placeholders"].items()}
    assert numbers["context_tokens"] == 4096
    assert numbers["all_tools"] == numbers["tools"] > numbers["control_tools"] > 2
    assert numbers["all_tokens"] > numbers["control_tokens"] > 200


async def test_an_agent_is_changed(hass, board, loaded):
    agent = subentry(loaded, "conversation")
    flow = await loaded.start_subentry_reconfigure_flow(hass, agent.subentry_id)
    assert flow["step_id"] == "reconfigure"
    result = await answer(
        hass, flow, name="Renamed", tools="control", history_turns=1, max_tokens=64, llm_hass_api=["assist"]
    )
    assert result["reason"] == "reconfigure_successful"
    changed = subentry(loaded, "conversation")
    assert changed.title == "Renamed"
    assert changed.data["tools"] == "control"
    assert changed.data["llm_hass_api"] == ["assist"]


@pytest.mark.parametrize(
    ("values", "errors"),
    [
        ({"model": "gone"}, {"model": "unknown_model"}),
        ({"tools": "selected"}, {"selected_tools": "no_tools_selected"}),
    ],
)
async def test_settings_that_cannot_work_are_refused(hass, board, loaded, values, errors):
    flow = await add(hass, loaded, "conversation")
    good = {"name": "Chat", "tools": "all", "history_turns": 3, "max_tokens": 100}
    result = await answer(hass, flow, **(good | values))
    assert result["errors"] == errors
    result = await answer(hass, result, **good)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    board.come_up()


async def test_tools_cannot_be_chosen_where_the_daemon_has_none(hass, board, loaded):
    board.come_up(features=["chat"])
    flow = await add(hass, loaded, "conversation")
    values = {"name": "Chat", "tools": "all", "history_turns": 3, "max_tokens": 100}
    result = await answer(hass, flow, **values, llm_hass_api=["assist"])
    assert result["errors"] == {"llm_hass_api": "tools_unsupported"}


async def test_a_task_is_added_and_changed(hass, board, loaded):
    flow = await add(hass, loaded, "ai_task_data")
    result = await answer(hass, flow, name="Summaries", priority="background", max_tokens=500)
    assert result["type"] is FlowResultType.CREATE_ENTRY
    board.come_up()
    await hass.async_block_till_done()
    task = next(each for each in loaded.subentries.values() if each.title == "Summaries")
    assert task.data == {"priority": "background", "max_tokens": 500, "thinking": False}
    flow = await loaded.start_subentry_reconfigure_flow(hass, task.subentry_id)
    result = await answer(hass, flow, name="Summaries", priority="normal", max_tokens=400)
    assert result["reason"] == "reconfigure_successful"


@pytest.mark.parametrize("kind", ["conversation", "ai_task_data"])
async def test_nothing_can_be_added_while_the_daemon_is_away(hass, loaded, kind):
    assert await hass.config_entries.async_unload(loaded.entry_id)
    assert loaded.state is ConfigEntryState.NOT_LOADED
    flow = await add(hass, loaded, kind)
    assert flow["reason"] == "entry_not_loaded"
