"""What a spoken question waits for its first word when its prefix was made ready, after foreign work.

A home's voice has a prefix of 3,000 tokens, system prompt and tools. Foreign work has taken the KV cache when
the wake word comes; the question follows 2 s later. Beside: the same question with nothing in between, which
is the floor; and the arithmetic, floor + new tokens at the library's pace. Then two rounds of a tool call
while 50 background prompts wait.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench import models
from bench.asking import Asker, Broken
from bench.context import Context
from bench.exchange import exchange, probed, tell
from bench.figure import Figure, Goal, median
from bench.rows.tools import TOOLS
from bench.service import NODE, Stage
from bench.wire import Message, Wire

_WAITS_S = 2.0
"""From the wake word to the question: speech and its recognition."""
_HOLD_S = 6.0
_BEHIND = 50
_TOOL_S = 0.1
"""What a home takes to switch a lamp."""


async def measure(context: Context) -> list[Figure]:
    """Ask after foreign work, with and without a wake word; then call a tool in a crowd."""
    words = 160 if context.quick else 1_250
    async with context.stage(lambda folder: models.home(folder, reuse=True)) as stage:
        service = await stage.daemon("home", {"runtime": stage.probing})
        await probed(stage)
        system = {"role": "system", "content": models.buried(7, words).prompt}
        prefix = {"messages": [system], "tools": TOOLS}
        await tell(stage, "voice", {"register": "voice", **prefix})
        voice, foreign = (
            await Voice.open(stage, prefix),
            await Asker.connect(stage.port, service.dialect.at("background"), "foreign"),
        )
        await _warm(stage)
        floor = []
        for number in range(4):
            await tell(stage, "voice", {"warm": "voice"}, f"floor-{number}")
            floor.append(await voice.ask(models.say(number, 3).prompt))
        woken, covered = [], []
        for number in range(context.rounds(4)):
            foreign.ask([models.buried(number, 60), models.count(40)])
            await asyncio.sleep(1.0)
            warm = await tell(stage, "voice", {"warm": "voice", "hold_s": _HOLD_S}, f"wake-{number}")
            await asyncio.sleep(max(0.0, _WAITS_S - warm["timing"]["total_ms"] / 1000))
            woken.append(await voice.ask(models.say(number, 3).prompt))
            covered.append(woken[-1]["usage"]["cached_tokens"] / warm["usage"]["prompt_tokens"])
            foreign.cancel()
            await foreign.done()
        second = await _tool_turn(voice, foreign)
        await foreign.close()
        await voice.close()
    cold_ms = models.HOME_FLOOR_MS + models.HOME_PREFILL_MS * floor[0]["usage"]["prompt_tokens"]
    floor_ms, woken_ms, second_ms = (_first_ms(finals) for finals in (floor, woken, second))
    return [
        Figure(
            f"{floor[0]['usage']['cached_tokens']} tokens of prefix after foreign work, woken before / warm",
            woken_ms / floor_ms, "x", cold_ms / floor_ms, Goal(1.1),
            f"{woken_ms:.0f} ms, warm {floor_ms:.0f} ms, arithmetic {_allowed_ms(floor):.0f} ms; "
            f"{100 * min(covered):.0f} % of it cached, 2 s from wake word to question; beside: computed anew",
            {"woken_ms": [one["first_ms"] for one in woken], "floor_ms": [one["first_ms"] for one in floor]},
        ),
        Figure(
            f"second round of a tool call, {_BEHIND} background prompts waiting / arithmetic",
            second_ms / _allowed_ms(second), "x", cold_ms / _allowed_ms(second), Goal(1.25),
            f"{second_ms:.0f} ms behind the result, which took the home {1000 * _TOOL_S:.0f} ms; "
            "beside: all computed anew",
            {"second_ms": [one["first_ms"] for one in second]},
        ),
    ]  # fmt: skip


def _first_ms(finals: Sequence[Any]) -> float:
    return median([final["first_ms"] for final in finals])


def _allowed_ms(finals: Sequence[Any]) -> float:
    """Return what the library takes to the first token at best: its floor, and what is new in the prompt."""
    usages = [final["usage"] for final in finals]
    new = median([usage["prompt_tokens"] - usage["cached_tokens"] for usage in usages])
    return models.HOME_FLOOR_MS + models.HOME_PREFILL_MS * new


async def _tool_turn(voice: "Voice", foreign: Asker) -> list[Any]:
    """Return the finals of some second rounds."""
    foreign.ask([models.say(number, 4) for number in range(_BEHIND)])
    finals = []
    for name in ("Kitchen Lamp", "Hall Lamp", "Bed Lamp"):
        await asyncio.sleep(0.5)
        await voice.ask(f"turn on the {name}", must_call=True)
        await asyncio.sleep(_TOOL_S)
        finals.append(await voice.result())
    foreign.cancel()
    await foreign.done()
    return finals


async def _warm(stage: Stage) -> None:
    """Wait until the daemon has made the prefix ready by itself.

    Raises:
        Broken: It does not.
    """
    for _ in range(300):
        health = (await exchange(stage, "admin/request/health", "admin/response/health", {}))["data"]
        if health["prefix"] is not None and health["prefix"]["state"] == "warm":
            return
        await asyncio.sleep(0.1)
    raise Broken("the registered prefix was not made ready in 30 s")


class Voice:
    """A client that asks one question after another, each behind the same prefix."""

    def __init__(self, prefix: Mapping[str, Any]) -> None:
        self._prefix = prefix
        self._wire: Wire
        self._number = 0
        self._first_ns = 0
        self._final: asyncio.Future[Any]
        self._turn: list[Mapping[str, Any]] = []

    @classmethod
    async def open(cls, stage: Stage, prefix: Mapping[str, Any]) -> "Voice":
        """Connect."""
        voice = cls(prefix)
        voice._wire = await Wire.open(stage.port, "bench-voice", voice._take)
        await voice._wire.subscribe([f"rkllm/{NODE}/client/voice/{kind}/+" for kind in ("delta", "reply")])
        return voice

    async def ask(self, text: str, *, must_call: bool = False) -> Any:
        """Return the final of a question of its own, with `first_ms`.

        Raises:
            Broken: It failed, or a tool was to be called and was not.
        """
        self._turn = [*self._prefix["messages"], {"role": "user", "content": text}]
        final = await self._send()
        if bool(final["tool_calls"]) != must_call:
            raise Broken(f"{text!r}: {len(final['tool_calls'])} calls")
        self._turn.append({"role": "assistant", "content": final["text"], "tool_calls": final["tool_calls"]})
        return final

    async def result(self) -> Any:
        """Bring the results of the tools that were called; return the final."""
        for call in self._turn[-1]["tool_calls"]:
            self._turn.append({"role": "tool", "tool_call_id": call["id"], "content": "done"})
        return await self._send()

    async def close(self) -> None:
        """Disconnect."""
        await self._wire.close()

    async def _send(self) -> Any:
        self._number += 1
        self._first_ns, self._final = 0, asyncio.get_running_loop().create_future()
        request = {**self._prefix, "messages": self._turn, "priority": "interactive", "stream": True}
        topic = f"rkllm/{NODE}/client/voice/request/v{self._number}"
        asked_ns = self._wire.publish([(topic, json.dumps(request).encode())])
        final = await asyncio.wait_for(self._final, 120)
        if final["status"] != "ok":
            raise Broken(f"a question failed: {final['error']}")
        return {**final, "first_ms": (self._first_ns - asked_ns) / 1e6}

    def _take(self, message: Message) -> None:
        _, kind, request_id = message.topic.rsplit("/", 2)
        if request_id == f"v{self._number}":
            self._first_ns = self._first_ns or message.at_ns
            if kind == "reply" and not self._final.done():
                self._final.set_result(json.loads(message.payload))
