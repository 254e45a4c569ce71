"""Wait for a worker that loads its model, unless another worker is wanted meanwhile."""

import asyncio
from typing import Any

from rkllm_mqtt.core.errors import ModelUnavailable
from rkllm_mqtt.runtime.facts import SlotFacts
from rkllm_mqtt.runtime.process import WorkerProcess


async def load(worker: WorkerProcess, facts: SlotFacts, unwanted: asyncio.Event, timeout_s: float) -> bool:
    """Return True when the model is loaded; False when another worker is wanted: a load may hang for minutes.

    Args:
        worker: Started.
        facts: Learn what the library says of itself, as early as it does.
        unwanted: Set when nobody needs this worker any more.
        timeout_s: Longest load, seconds; then the worker is killed.

    Raises:
        ModelUnavailable: It did not load, or not in time.
    """
    given_up = asyncio.create_task(unwanted.wait(), name="slot-recycle")
    try:
        async with asyncio.timeout(timeout_s):
            first: set[asyncio.Future[Any]] = {worker.hello, worker.gone, given_up}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            facts.learn(worker)
            second: set[asyncio.Future[Any]] = {worker.ready, given_up}
            await asyncio.wait(second, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        worker.kill("the model did not load in time")
        message = "the model did not load in time"
        raise ModelUnavailable(message, "Raise `runtime.load_timeout_s`.") from None
    finally:
        given_up.cancel()
    if not worker.ready.done():
        return False
    worker.ready.result()
    facts.learn(worker)
    return True
