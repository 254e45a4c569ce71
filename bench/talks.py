"""Conversations over MQTT whose times to the first token are measured: whole messages are sent each time."""

import asyncio
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.asking import Broken
from bench.service import NODE
from bench.wire import Message, Wire

ANSWER_S = 120.0
"""Longest wait for an answer."""

_READS_S = 0.6
"""A short look at an answer."""

_numbers = itertools.count()


class Talker:
    """One MQTT connection for any number of clients and for admin commands."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wire: Wire
        self._waits: dict[str, asyncio.Future[Message]] = {}

    async def __aenter__(self) -> "Talker":
        self._wire = await Wire.open(self._port, f"talker-{next(_numbers)}", self._take)
        await self._wire.subscribe([f"rkllm/{NODE}/client/+/+/#", f"rkllm/{NODE}/admin/response/#"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    async def ask(
        self, client: str, messages: Sequence[Mapping[str, Any]], **members: Any
    ) -> tuple[float, Any]:
        """Ask; return the milliseconds from the publish to the first delta, and the final.

        Raises:
            Broken: The answer is an error, or does not come.
        """
        name = f"t{next(_numbers)}"
        mailbox = f"rkllm/{NODE}/client/{client}"
        first, last = self._expect(f"{mailbox}/delta/{name}"), self._expect(f"{mailbox}/reply/{name}")
        body = {"messages": messages, "stream": True, "max_tokens": 40, **members}
        sent_ns = self._wire.publish([(f"{mailbox}/request/{name}", json.dumps(body).encode())])
        final = json.loads((await _in_time(last)).payload)
        if final["status"] != "ok":
            raise Broken(f"{client}: {final['error']}")
        if not first.done():
            raise Broken(f"{client}: an answer without deltas")
        return (first.result().at_ns - sent_ns) / 1e6, final

    def send(self, client: str, members: Mapping[str, Any]) -> "asyncio.Future[Message]":
        """Send a request and return what resolves with its reply."""
        name = f"t{next(_numbers)}"
        mailbox = f"rkllm/{NODE}/client/{client}"
        reply = self._expect(f"{mailbox}/reply/{name}")
        self._wire.publish([(f"{mailbox}/request/{name}", json.dumps(members).encode())])
        return reply

    def begun(self, client: str, members: Mapping[str, Any]) -> "asyncio.Future[Message]":
        """Send a request and return what resolves with its first delta."""
        name = f"t{next(_numbers)}"
        mailbox = f"rkllm/{NODE}/client/{client}"
        delta = self._expect(f"{mailbox}/delta/{name}")
        self._wire.publish([(f"{mailbox}/request/{name}", json.dumps(members).encode())])
        return delta

    async def admin(self, command: str, **members: Any) -> Any:
        """Return the data of an admin command.

        Raises:
            Broken: It is refused.
        """
        response = self._expect(f"rkllm/{NODE}/admin/response/{command}")
        self._wire.publish([(f"rkllm/{NODE}/admin/request/{command}", json.dumps(members).encode())])
        told = json.loads((await _in_time(response)).payload)
        if told["status"] != "ok":
            raise Broken(f"{command}: {told['error']}")
        return told["data"]

    async def settled(self) -> None:
        """Wait until the idle slot has saved what it wants: a person would read the answer meanwhile."""
        await asyncio.sleep(_READS_S)

    async def until(self, command: str, holds: Any) -> Any:
        """Ask an admin command until its answer is as it should be.

        Raises:
            Broken: It never is.
        """
        ends_at = time.monotonic() + ANSWER_S
        while not holds(told := await self.admin(command)):
            if time.monotonic() > ends_at:
                raise Broken(f"{command} says {told}")
            await asyncio.sleep(0.1)
        return told

    def _expect(self, topic: str) -> "asyncio.Future[Message]":
        waited: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waits[topic] = waited
        return waited

    def _take(self, message: Message) -> None:
        waited = self._waits.get(message.topic)
        if waited is not None and not waited.done():
            waited.set_result(message)


async def _in_time(waited: "asyncio.Future[Message]") -> Message:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await waited
    except TimeoutError as exc:
        raise Broken("an answer did not come") from exc


class Talk:
    """A conversation of one client, with a system prompt of about so many tokens."""

    def __init__(self, talker: Talker, client: str, tokens: int) -> None:
        self._talker = talker
        self.client = client
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system_of(client, tokens)}]

    async def say(self, text: str, **members: Any) -> float:
        """Ask the next question; return the milliseconds to the first token."""
        self.messages.append({"role": "user", "content": f"say: {text}"})
        ms, final = await self._talker.ask(self.client, self.messages, **members)
        if final["text"] != text:
            raise Broken(f"{self.client} was answered {final['text']!r}")
        self.messages.append({"role": "assistant", "content": text})
        return ms


def system_of(name: str, tokens: int) -> str:
    """Return a system prompt of about so many tokens of the simulator, another one for each name."""
    sentence = f" The lamp of {name} is on."
    return f"You help {name}." + sentence * max(1, round((tokens - 10) / 7))
