"""What is left when the entry is reloaded and removed, and what the log says."""

import re

from live_client import Client


async def test_a_reload_keeps_all(house, agent):
    (entry,) = await house.socket.call("config_entries/get", domain="rkllm_mqtt")
    before = await house.entities("rkllm_mqtt")
    await house.post(f"/api/config/config_entries/entry/{entry['entry_id']}/reload", {})
    assert (await house.entities("rkllm_mqtt")).keys() == before.keys()
    heard = await house.ask("say: reloaded")
    assert heard.speech == "reloaded"


async def test_a_removal_leaves_nothing_behind(house, agent, broker):
    # The one of all tests has lost its subscriptions in the broker's restart.
    watcher = Client(broker.port).subscribe("rkllm/board/client/homeassistant/reply/#")
    (entry,) = await house.socket.call("config_entries/get", domain="rkllm_mqtt")
    async with house.session.delete(
        f"{house.url}/api/config/config_entries/entry/{entry['entry_id']}", headers=house.headers
    ) as answer:
        assert answer.status == 200
    assert await house.entities("rkllm_mqtt") == {}
    devices = await house.socket.call("config/device_registry/list")
    assert not [each for each in devices if entry["entry_id"] in each["config_entries"]]
    issues = (await house.socket.call("repairs/list_issues"))["issues"]
    assert not [issue for issue in issues if issue["domain"] == "rkllm_mqtt"]

    async def forgotten():
        replies = [message.json for message in watcher.messages]
        return "removed" in [reply["prefix"]["state"] for reply in replies if "prefix" in reply]

    await house.until(forgotten)
    watcher.close()


async def test_the_log_names_us_in_no_warning(house):
    bad = [
        line
        for line in re.sub(r"\x1b\[[0-9;]*m", "", house.log).splitlines()
        if re.search(r" (WARNING|ERROR|CRITICAL) ", line) and "rkllm" in line
    ]
    # Home Assistant says this of each custom integration, at each start.
    bad = [line for line in bad if "has not been tested by Home Assistant" not in line]
    # The line before a traceback may name nobody.
    bad += [
        line
        for line in house.log.splitlines()
        if 'File "' in line and "/custom_components/rkllm_mqtt/" in line
    ]
    assert bad == []
