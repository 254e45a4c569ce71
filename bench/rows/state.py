"""How old the retained state is while the slot is busy, and how fast a new reader gets it.

300 short prompts come at once, so the queue changes all the time: the longest time between two `queue`
messages, from the first prompt on, is the greatest age of what a reader could have found.
"""

import asyncio
import time
from itertools import pairwise

from bench import models
from bench.asking import Asker, Broken
from bench.context import Context
from bench.figure import Figure, Goal
from bench.service import NODE
from bench.wire import LIMIT_S, Message, Wire

_PROMPTS = 300
_READ_EVERY_S = 0.1


async def measure(context: Context) -> list[Figure]:
    """Watch `queue` while prompts run, and read it anew ten times a second."""
    async with context.stage(models.brief) as stage:
        service = await stage.daemon("ours")
        seen: list[Message] = []
        watcher = await Wire.open(stage.port, "watcher", seen.append)
        await watcher.subscribe([f"rkllm/{NODE}/queue"])
        asker = await Asker.connect(stage.port, service.dialect, "crowd")
        answers = asker.ask([models.say(n) for n in range(context.rounds(_PROMPTS))])
        working = asyncio.ensure_future(asker.done())
        answer_ms: list[float] = []
        while not working.done():
            answer_ms.append(await _read_anew(stage.port, len(answer_ms)))
            await asyncio.wait({working}, timeout=_READ_EVERY_S)
        await working
        for answer in answers:
            answer.check(service.dialect)
        began, ended = answers[0].asked_ns, max(answer.final_ns for answer in answers)
        times = [began, *(one.at_ns for one in seen if began < one.at_ns < ended and not one.retained), ended]
        await watcher.close()
        await asker.close()
    ages = [(b - a) / 1e6 for a, b in pairwise(times)]
    return [
        Figure(
            "state while busy: greatest age of `queue`", max(ages), "ms", None, Goal(1000),
            f"{len(answers)} prompts at once", {"ages_ms": ages},
        ),
        Figure(
            "state while busy: slowest answer to a new reader", max(answer_ms), "ms",
            note=f"{len(answer_ms)} readers, connect included", raw={"answers_ms": answer_ms},
        ),
    ]  # fmt: skip


async def _read_anew(port: int, number: int) -> float:
    """Return the milliseconds from the connect of a new reader to its first `queue`."""
    came: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take(message: Message) -> None:
        if not came.done():
            came.set_result(message.at_ns)

    began = time.monotonic_ns()
    wire = await Wire.open(port, f"reader-{number}", take)
    try:
        await wire.subscribe([f"rkllm/{NODE}/queue"])
        return (await asyncio.wait_for(came, LIMIT_S) - began) / 1e6
    except TimeoutError as exc:
        raise Broken("nothing is retained on `queue`") from exc
    finally:
        await wire.close()
