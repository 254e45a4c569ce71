"""What a person sees: the Assist dialog, the device, and the dashboard, in a real browser."""

import asyncio
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from house import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = ROOT / ".homeassistant" / "browser" / "package.json"
LAMP = "light.kitchen_lamp"

pytestmark = pytest.mark.browser


async def look(house, name, *steps):
    """Let the browser walk through steps; pictures go to a folder that is kept when it is asked for."""
    assert CHROMIUM, "no Chromium on this machine: apt-get install chromium"
    pictures = Path(os.environ.get("HOUSE_PICTURES", house.folder / "pictures"))
    pictures.mkdir(parents=True, exist_ok=True)
    tokens = house.tokens | {
        "hassUrl": house.url,
        "clientId": f"{house.url}/",
        "expires": int((time.time() + 1700) * 1000),
    }
    steps = [step | ({"shot": str(pictures / step["shot"])} if "shot" in step else {}) for step in steps]
    job = {"driver": str(DRIVER), "chromium": CHROMIUM, "url": house.url, "tokens": tokens, "steps": steps}
    file = house.folder / f"{name}.json"
    file.write_text(json.dumps(job))
    script = Path(__file__).parent / "browser.mjs"
    process = await asyncio.create_subprocess_exec(
        "node", str(script), str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0, said.decode()
    for step in steps:
        if "shot" in step:
            assert Path(step["shot"]).stat().st_size > 10_000


async def test_the_kitchen_lamp_is_switched_on_in_the_assist_dialog(house, agent):
    await house.service("light.turn_off", entity_id=LAMP)
    await look(
        house,
        "assist",
        {"go": "/home/overview", "wait": "Assist"},
        {"ask": "turn on the Kitchen Lamp", "wait": r"is now on|turned on|Done|on\."},
        {"ask": "Tell me a story of 40 words", "wait": "story of 40 words[^]{200,}", "shot": "assist.png"},
    )
    assert await house.state(LAMP) == "on"


async def test_the_device_page_shows_the_daemon(house, agent):
    devices = await house.socket.call("config/device_registry/list")
    (device,) = [each for each in devices if ["mqtt", "rkllm_board"] in each["identifiers"]]
    await look(
        house,
        "device",
        {"go": f"/config/devices/device/{device['id']}", "wait": "Generation speed", "shot": "device.png"},
    )


async def test_the_dashboard_shows_the_daemon(house, agent):
    text = (ROOT / "homeassistant" / "dashboard.yaml").read_text().replace("rock5", "board")
    config = yaml.safe_load(text)
    states = {state["entity_id"] for state in await house.get("/api/states")}
    named = set(re.findall(r"[a-z_]+\.rkllm_board_\w+", text))
    assert named <= states, named - states
    created = await house.socket.call(
        "lovelace/dashboards/create", url_path="language-model", title=config["title"], mode="storage"
    )
    await house.socket.call("lovelace/config/save", url_path=created["url_path"], config=config)
    prompt = next(state for state in states if state.startswith("notify.rkllm_board"))
    message = "say: Good morning! It is a sunny day, and the washing machine is done."
    await house.service("notify.send_message", entity_id=prompt, message=message)
    await look(
        house,
        "dashboard",
        {"go": "/language-model/language-model", "wait": "washing machine", "shot": "dashboard.png"},
    )
