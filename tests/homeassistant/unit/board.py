"""The daemon's side of the wire, by the golden messages that the daemon's own tests keep true."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from homeassistant.core import HomeAssistant
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_fire_mqtt_message

WIRE = Path(__file__).parents[2] / "wire"
NODE = "rkllm/rock5"
CLIENT = "homeassistant"
TURNS = 20_000
"""Turns of the event loop that a test waits for something."""


def golden(name: str) -> dict[str, Any]:
    """Return a message as the daemon sends it."""
    return json.loads((WIRE / f"{name}.json").read_bytes())


class Board:
    """One node: hears what Home Assistant publishes, says what a test lets it say."""

    def __init__(self, hass: HomeAssistant, mqtt_mock: Any, node: str = NODE) -> None:
        self.hass = hass
        self.mqtt = mqtt_mock
        self.topic = node
        self.box = f"{node}/client/{CLIENT}"
        self.info = golden("info") | {"node": node.split("/")[1]}
        # What the daemon is told in advance would stand between the requests that tests count.
        self.info["features"] = [each for each in self.info["features"] if each not in ("prefixes", "warm")]

    def say(self, topic: str, payload: Any, *, retain: bool = False) -> None:
        """Publish on a topic below the node."""
        if not isinstance(payload, str | bytes):
            payload = json.dumps(payload)
        async_fire_mqtt_message(self.hass, f"{self.topic}/{topic}", payload, retain=retain)

    def come_up(self, **changes: Any) -> None:
        """Say what a daemon says when it has connected."""
        self.info |= changes
        self.say("info", self.info)
        self.say("status", "online")

    async def setup(self, entry: MockConfigEntry) -> bool:
        """Set an entry up, with the retained messages coming when they are subscribed to."""
        if self.hass.config_entries.async_get_entry(entry.entry_id) is None:
            entry.add_to_hass(self.hass)
        task = self.hass.async_create_task(self.hass.config_entries.async_setup(entry.entry_id))
        await self.until(lambda: self.subscribed("info") or task.done())
        self.come_up()
        done = await task
        await self.hass.async_block_till_done()
        return done

    def subscribed(self, topic: str) -> bool:
        """Return whether Home Assistant listens on a topic of the node."""
        return self.hass.data["mqtt"].client.is_active_subscription(f"{self.topic}/{topic}")

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait, in turns of the loop, until something holds."""
        for _ in range(TURNS):
            if value := holds():
                return value
            await asyncio.sleep(0)
        raise AssertionError("it never came")

    def published(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the ids and payloads of what Home Assistant published: request or cancel."""
        found = []
        for call in self.mqtt.async_publish.call_args_list:
            topic, payload = call.args[:2]
            if topic.startswith(f"{self.box}/{kind}/"):
                found.append((topic.rsplit("/", 1)[1], json.loads(payload or "{}")))
        return found

    async def request(self, number: int = 0) -> Asked:
        """Wait for a request; 0 is the first."""
        await self.until(lambda: len(self.published("request")) > number)
        return Asked(self, *self.published("request")[number])


class Asked:
    """A request that came, to be answered."""

    def __init__(self, board: Board, request_id: str, body: dict[str, Any]) -> None:
        self.board = board
        self.id = request_id
        self.body = body

    def event(self, name: str, **changes: Any) -> None:
        """Send an event like the golden one of that name."""
        self.board.say(f"client/{CLIENT}/event/{self.id}", golden(name) | {"id": self.id} | changes)

    def delta(self, seq: int, text: str = "", *, attempt: int = 1, thinking: str = "") -> None:
        """Send a delta."""
        part = {"thinking": thinking} if thinking else {"text": text}
        message = {"id": self.id, "attempt": attempt, "seq": seq, **part}
        self.board.say(f"client/{CLIENT}/delta/{self.id}", message)

    def final(self, text: str, **changes: Any) -> None:
        """Send the final answer."""
        final = golden("final") | {"id": self.id, "text": text, "thinking": "", "attempt": 1}
        self.board.say(f"client/{CLIENT}/reply/{self.id}", final | changes)

    def fail(self, code: str, text: str = "") -> None:
        """Send an error."""
        error = golden("error") | {"id": self.id, "text": text}
        error["error"] = error["error"] | {"code": code}
        self.board.say(f"client/{CLIENT}/reply/{self.id}", error)

    def call(self, *calls: tuple[str, Any], text: str = "") -> None:
        """Send a final that calls tools: names and arguments."""
        tool_calls = [
            {
                "id": f"call_{self.id[-6:]}_{number}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for number, (name, arguments) in enumerate(calls)
        ]
        self.final(text, tool_calls=tool_calls, finish_reason="tool_calls")
