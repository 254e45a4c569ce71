"""A real Home Assistant in a clean folder on loopback, driven as its own frontend drives it."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from live_broker import free_port

ROOT = Path(__file__).parents[3]
CONFIG = Path(__file__).parent / "configuration.yaml"
PATIENCE_S = 60.0
DOMAIN = "rkllm_mqtt"


class Call(Exception):
    """A command or a request that Home Assistant refused."""


class Socket:
    """The websocket of the frontend: commands with results, and subscriptions with events."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._queues: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, session: aiohttp.ClientSession, url: str, token: str) -> Socket:
        """Connect and sign in."""
        socket = await session.ws_connect(f"{url.replace('http', 'ws', 1)}/api/websocket", max_msg_size=0)
        assert (await socket.receive_json())["type"] == "auth_required"
        await socket.send_json({"type": "auth", "access_token": token})
        answer = await socket.receive_json()
        assert answer["type"] == "auth_ok", answer
        return cls(socket)

    async def _read(self) -> None:
        async for message in self._socket:
            parsed = message.json()
            for each in parsed if isinstance(parsed, list) else [parsed]:
                if (queue := self._queues.get(each.get("id"))) is not None:
                    queue.put_nowait(each)

    async def send(self, kind: str, **members: Any) -> int:
        """Send a command; return its number."""
        self._number += 1
        self._queues[self._number] = asyncio.Queue()
        await self._socket.send_json({"id": self._number, "type": kind, **members})
        return self._number

    async def next(self, number: int, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Return the next message about a command."""
        return await asyncio.wait_for(self._queues[number].get(), patience_s)

    async def call(self, kind: str, **members: Any) -> Any:
        """Return the result of a command."""
        answer = await self.next(await self.send(kind, **members))
        if not answer["success"]:
            raise Call(answer["error"])
        return answer["result"]

    async def close(self) -> None:
        """Disconnect."""
        await self._socket.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader


class House:
    """One Home Assistant."""

    def __init__(self, folder: Path, mqtt_port: int) -> None:
        self.folder = folder
        self.mqtt_port = mqtt_port
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tokens: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._socket: Socket | None = None
        self.pipeline = ""

    # process

    def prepare(self) -> None:
        """Make the configuration folder, with the integration in it."""
        config = self.folder / "config"
        (config / ".storage").mkdir(parents=True)
        shutil.copy(CONFIG, config / "configuration.yaml")
        (config / "automations.yaml").write_text("[]\n")
        shutil.copytree(
            ROOT / "homeassistant" / "custom_components",
            config / "custom_components",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        # Since 2026.11 these are settings in storage; `http:` in YAML would only be proposed in a dialog.
        http = {
            "server_host": ["127.0.0.1"],
            "server_port": self.port,
            "cors_allowed_origins": [],
            "login_attempts_threshold": -1,
            "ip_ban_enabled": True,
            "ssl_profile": "intermediate_v6",
            "use_x_frame_options": True,
            "created_at": "2026-01-01T00:00:00+00:00",
            "error": None,
            "error_message": None,
        }
        data = {"stable": http, "pending": None, "yaml_migration_done": True}
        stored = {"version": 3, "minor_version": 1, "key": "http", "data": data}
        (config / ".storage" / "http").write_text(json.dumps(stored))

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        self._spawn()
        self._session = aiohttp.ClientSession()
        await self.until(self._answers, 180)

    def _spawn(self) -> None:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        hass = Path(sys.executable).parent / "hass"
        with (self.folder / "hass.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(hass), "-c", str(self.folder / "config")],
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(home), "PATH": f"{hass.parent}:{os.environ['PATH']}"},
            )

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        try:
            async with self.session.get(f"{self.url}/api/onboarding") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def stop(self) -> None:
        """End the process."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self.process.wait, 60)
            self.process = None

    @property
    def log(self) -> str:
        """Return the log so far."""
        return (self.folder / "hass.log").read_text(errors="replace")

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the connection."""
        assert self._session is not None
        return self._session

    @property
    def socket(self) -> Socket:
        """Return the websocket."""
        assert self._socket is not None
        return self._socket

    @property
    def headers(self) -> dict[str, str]:
        """Return who we are."""
        return {"Authorization": f"Bearer {self.tokens['access_token']}"} if self.tokens else {}

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST JSON and return the answer."""
        async with self.session.post(f"{self.url}{path}", json=body, headers=self.headers) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise Call(f"{path}: {answer.status} {text}")
            return json.loads(text) if text else None

    async def get(self, path: str) -> Any:
        """GET JSON."""
        async with self.session.get(f"{self.url}{path}", headers=self.headers) as answer:
            return await answer.json()

    async def until(self, holds: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> Any:
        """Wait until something holds, and return it."""
        end = time.monotonic() + patience_s
        while not (value := await holds()):
            assert time.monotonic() < end, f"never held: {holds}"
            await asyncio.sleep(0.05)
        return value

    # onboarding and entries

    async def onboard(self) -> None:
        """Make the first user and go through the steps of the first start."""
        client = f"{self.url}/"
        person = {"name": "Owner", "username": "owner", "password": "a-password", "language": "en"}
        code = await self.post("/api/onboarding/users", {"client_id": client, **person})
        form = {"client_id": client, "grant_type": "authorization_code", "code": code["auth_code"]}
        async with self.session.post(f"{self.url}/auth/token", data=form) as answer:
            self.tokens = await answer.json()
        await self.post("/api/onboarding/core_config", {})
        await self.post("/api/onboarding/analytics", {})
        await self.post("/api/onboarding/integration", {"client_id": client, "redirect_uri": client})
        await self.until(self._runs)
        self._socket = await Socket.open(self.session, self.url, self.tokens["access_token"])

    async def _runs(self) -> bool:
        return (await self.get("/api/config"))["state"] == "RUNNING"

    async def flow(self, path: str, *answers: dict[str, Any], **start: Any) -> dict[str, Any]:
        """Walk through a flow and return its end; without `start` it is one that exists, by its path."""
        result = await self.post(path, start) if start else {"flow_id": path.rsplit("/", 1)[1]}
        base = path if start else path.rsplit("/", 1)[0]
        for answer in answers:
            result = await self.post(f"{base}/{result['flow_id']}", answer)
        return result

    async def add_mqtt(self) -> None:
        """Connect to the broker by MQTT's own flow."""
        other = {"set_client_cert": False, "set_ca_cert": "off"}
        broker = {"broker": "127.0.0.1", "port": self.mqtt_port, "protocol": "5", "other_settings": other}
        result = await self.flow(
            "/api/config/config_entries/flow", broker, handler="mqtt", show_advanced_options=True
        )
        assert result["type"] == "create_entry", result

    async def discovered(self) -> dict[str, Any]:
        """Wait until our integration is offered; return its flow."""

        async def offered() -> dict[str, Any] | None:
            flows = await self.socket.call("config_entries/flow/progress")
            return next((flow for flow in flows if flow["handler"] == DOMAIN), None)

        return await self.until(offered)

    async def add_pipeline(self, agent: str) -> None:
        """Make a preferred Assist pipeline of the agent."""
        pipeline = await self.socket.call(
            "assist_pipeline/pipeline/create",
            name="RKLLM",
            language="en",
            conversation_engine=agent,
            conversation_language="en",
            stt_engine=None,
            stt_language=None,
            tts_engine=None,
            tts_language=None,
            tts_voice=None,
            wake_word_entity=None,
            wake_word_id=None,
            prefer_local_intents=False,
        )
        self.pipeline = pipeline["id"]
        await self.socket.call("assist_pipeline/pipeline/set_preferred", pipeline_id=self.pipeline)

    # states and questions

    async def state(self, entity_id: str) -> str | None:
        """Return the state of an entity; None when there is none."""
        return (await self.get(f"/api/states/{entity_id}")).get("state")

    async def entities(self, platform: str) -> dict[str, dict[str, Any]]:
        """Return the registered entities of an integration by their ids."""
        registry = await self.socket.call("config/entity_registry/list")
        return {entity["entity_id"]: entity for entity in registry if entity["platform"] == platform}

    async def entity(self, platform: str, domain: str) -> str:
        """Wait for the one entity of an integration and a domain; return its id."""

        async def there() -> str | None:
            found = [entity_id for entity_id in await self.entities(platform) if entity_id.startswith(domain)]
            return found[0] if found else None

        return await self.until(there)

    async def service(self, name: str, *, answer: bool = False, **data: Any) -> Any:
        """Call an action; return its response when it has one."""
        path = f"/api/services/{name.replace('.', '/')}"
        result = await self.post(f"{path}?return_response" if answer else path, data)
        return result["service_response"] if answer else result

    async def expose(self, entity_ids: list[str], *, exposed: bool) -> None:
        """Expose entities to Assist, or take them away."""
        await self.socket.call(
            "homeassistant/expose_entity",
            assistants=["conversation"],
            entity_ids=entity_ids,
            should_expose=exposed,
        )

    async def ask(self, text: str, conversation_id: str | None = None) -> Heard:
        """Ask through the pipeline, to the end."""
        heard = Heard()
        async for event in self.run(text, conversation_id):
            heard.take(event)
        return heard

    async def run(self, text: str, conversation_id: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Ask through the pipeline; give out its events."""
        number = await self.begin(text, conversation_id)
        while True:
            message = await self.socket.next(number)
            if message["type"] == "result":
                if not message["success"]:
                    raise Call(message["error"])
                continue
            yield {**message["event"], "at": time.monotonic()}
            if message["event"]["type"] == "run-end":
                return

    async def begin(self, text: str, conversation_id: str | None = None) -> int:
        """Ask without waiting; return the number of the subscription."""
        return await self.socket.send(
            "assist_pipeline/run",
            start_stage="intent",
            end_stage="intent",
            input={"text": text},
            pipeline=self.pipeline,
            **({"conversation_id": conversation_id} if conversation_id else {}),
        )


class Heard:
    """What a person hears and sees of one question."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.pieces: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.speech = ""
        self.error: str | None = None
        self.conversation_id = ""
        self.first_s: float | None = None
        """From the start of the run to the first word."""

    def take(self, event: dict[str, Any]) -> None:
        """Add an event of the pipeline."""
        self.events.append(event)
        if event["type"] == "intent-progress":
            delta = event["data"].get("chat_log_delta", {})
            if delta.get("content") and delta.get("role") != "tool_result":
                self.pieces.append(delta["content"])
                if self.first_s is None:
                    self.first_s = event["at"] - self.events[0]["at"]
            if delta.get("thinking_content"):
                self.thoughts.append(delta["thinking_content"])
            self.calls += delta.get("tool_calls") or []
        elif event["type"] == "intent-end":
            output = event["data"]["intent_output"]
            self.speech = output["response"]["speech"]["plain"]["speech"]
            self.conversation_id = output["conversation_id"]
            if output["response"]["response_type"] == "error":
                self.error = output["response"]["data"]["code"]
        elif event["type"] == "error":
            self.error = event["data"]["code"]
            self.speech = event["data"]["message"]
