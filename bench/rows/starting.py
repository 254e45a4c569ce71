"""From the start of the process to the retained `online`, and to a model that loads in no time."""

import asyncio
import json
import time

from bench import models
from bench.asking import Broken
from bench.context import Context
from bench.figure import Figure, Goal, median
from bench.service import NODE, READY_S
from bench.wire import Message, Wire


async def measure(context: Context) -> list[Figure]:
    """Start the daemon several times, each time with a new broker and an empty journal."""
    starts = [await _start(context) for _ in range(context.rounds(5))]
    online, ready = [one for one, _ in starts], [two for _, two in starts]
    note = f"median of {len(starts)}, worst "
    return [
        Figure(
            "start to `online`", median(online), "ms", None, None,
            f"{note}{max(online):.0f} ms", {"ms": online},
        ),
        Figure(
            "start to ready, without model load", median(ready), "ms", None, Goal(1000),
            f"{note}{max(ready):.0f} ms", {"ms": ready},
        ),
    ]  # fmt: skip


async def _start(context: Context) -> tuple[float, float]:
    """Return the milliseconds to `online` and to a loaded model."""
    loop = asyncio.get_running_loop()
    online: asyncio.Future[int] = loop.create_future()
    ready: asyncio.Future[int] = loop.create_future()

    def take(message: Message) -> None:
        if message.topic.endswith("/status"):
            if message.payload == b"online" and not online.done():
                online.set_result(message.at_ns)
        elif any(model["loaded"] for model in json.loads(message.payload)["models"]) and not ready.done():
            ready.set_result(message.at_ns)

    async with context.stage(models.instant) as stage:
        wire = await Wire.open(stage.port, "watcher", take)
        await wire.subscribe([f"rkllm/{NODE}/status", f"rkllm/{NODE}/info"])
        began = time.monotonic_ns()
        service = stage.start_daemon("ours")
        both: set[asyncio.Future[int]] = {online, ready}
        done, _ = await asyncio.wait(both, timeout=READY_S)
        if len(done) < len(both):
            raise Broken(f"the daemon did not start: {service.child.last_words()}")
        await wire.close()
    return (online.result() - began) / 1e6, (max(online.result(), ready.result()) - began) / 1e6
