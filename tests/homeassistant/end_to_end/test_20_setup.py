"""The integration, found on the broker and added."""


async def test_it_is_discovered_by_the_retained_info(house):
    flow = await house.discovered()
    assert flow["context"]["source"] == "mqtt"
    assert "board" in flow["context"]["title_placeholders"]["name"]


async def test_it_brings_an_agent_and_an_ai_task(house, agent):
    assert agent.startswith("conversation.")
    assert await house.entity("rkllm_mqtt", "ai_task")
    agents = await house.socket.call("conversation/agent/list")
    assert agent in [each["id"] for each in agents["agents"]]
    (entry,) = await house.socket.call("config_entries/get", domain="rkllm_mqtt")
    assert entry["state"] == "loaded"


async def test_its_settings_show_the_budget_of_the_prompt(house, agent):
    (entry,) = await house.socket.call("config_entries/get", domain="rkllm_mqtt")
    subentries = await house.socket.call("config_entries/subentries/list", entry_id=entry["entry_id"])
    (chat,) = [each for each in subentries if each["subentry_type"] == "conversation"]
    form = await house.post(
        "/api/config/config_entries/subentries/flow",
        {
            "handler": [entry["entry_id"], "conversation"],
            "subentry_id": chat["subentry_id"],
            "show_advanced_options": True,
        },
    )
    assert form["step_id"] == "reconfigure", form
    numbers = {key: int(value) for key, value in form["description_placeholders"].items()}
    assert numbers["context_tokens"] == 8192
    assert numbers["all_tools"] >= numbers["control_tools"] > 2
    assert numbers["all_tokens"] >= numbers["control_tokens"] > 100


async def test_the_agents_hang_below_the_daemons_own_device(house, agent):
    async def linked():
        devices = await house.socket.call("config/device_registry/list")
        (board,) = [each for each in devices if ["mqtt", "rkllm_board"] in each["identifiers"]]
        ours = [each for each in devices if any(key == "rkllm_mqtt" for key, _ in each["identifiers"])]
        return len(ours) == 2 and {each["via_device_id"] for each in ours} == {board["id"]}

    await house.until(linked)
