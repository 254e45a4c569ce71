"""What offering tools costs: the first delta of a text answer, and the reading of each token.

The first delta is measured side by side on one daemon, with tools in the request and without, at the pace of
an RK3588 whose prefill does not depend on the prompt: so what differs is what we do with the answer.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench import models
from bench.asking import Asker, ask_one
from bench.context import Context
from bench.figure import Figure, Goal, median
from rkllm_mqtt.content.calls import CallParser
from rkllm_mqtt.content.offer import Offer

_PARAMETERS = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "area": {"type": "string"},
        "domain": {"type": "array", "items": {"type": "string"}},
        "brightness": {"type": "integer"},
    },
}
NAMES = (
    "HassTurnOn",
    "HassTurnOff",
    "HassLightSet",
    "HassGetState",
    "HassSetPosition",
    "HassClimateSetTemperature",
)
TOOLS = [{"type": "function", "function": {"name": name, "parameters": _PARAMETERS}} for name in NAMES]

_TEXT = "The lamp in the kitchen is on, and it is 21.5 degrees (as it was at noon). "
_MADE = '{"name": "HassTurnOn", "arguments": {"name": "Kitchen Lamp", "domain": ["light"]}}'
_CALL = f"<tool_call>\n{_MADE}\n</tool_call>\n"


async def measure(context: Context) -> list[Figure]:
    """Ask one daemon with and without tools in turn; then let the parser read alone."""
    async with context.stage(models.origin) as stage:
        daemon = await stage.daemon("ours")
        plain = await Asker.connect(stage.port, daemon.dialect, "plain")
        offering = replace(daemon.dialect, members={"tools": TOOLS})
        tools = await Asker.connect(stage.port, offering, "tools")
        first: dict[Asker, list[float]] = {plain: [], tools: []}
        for number in range(context.rounds(30) + 1):
            for asker, times in first.items():
                answer = await ask_one(asker, models.say(number))
                times.append((answer.first_ns - answer.asked_ns) / 1e6)
        for asker in first:
            await asker.close()
    without, with_tools = (
        median(first[plain][1:]),
        median(first[tools][1:]),
    )  # the first pays for lazy imports
    rounds = context.rounds(200)
    text_us = _us_per_token(_tokens(_TEXT) * 20, rounds)
    calls_us = _us_per_token(_tokens(_CALL) * 3, rounds)
    return [
        Figure(
            "first delta, tools offered / not", with_tools / without, "x", goal=Goal(1.05),
            note=f"{len(NAMES)} tools, answer in text, {with_tools:.1f} and {without:.1f} ms",
            raw={"with_ms": first[tools], "without_ms": first[plain]},
        ),
        Figure("reading a token of text for calls", text_us, "µs", note="tools offered, nothing called"),
        Figure("reading a token of calls", calls_us, "µs", note="three calls, their arguments fitted"),
    ]  # fmt: skip


def _us_per_token(tokens: Sequence[str], rounds: int) -> float:
    """Return the median cost of a token in answers that consist of these."""
    schemas: Mapping[str, Mapping[str, Any]] = dict.fromkeys(NAMES, _PARAMETERS)
    offer, costs = Offer(schemas), []
    for _ in range(rounds):
        parser = CallParser(offer)
        began = time.perf_counter()
        for token in tokens:
            parser.feed(token)
        parser.flush(complete=True)
        costs.append((time.perf_counter() - began) / len(tokens) * 1e6)
    return median(costs)


def _tokens(text: str) -> list[str]:
    """Return a text in pieces of three or four characters."""
    sizes: Iterable[int] = itertools.cycle((3, 4))
    pieces: list[str] = []
    at = 0
    for size in sizes:
        if at >= len(text):
            return pieces
        pieces.append(text[at : at + size])
        at += size
    return pieces
