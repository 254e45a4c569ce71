"""Say something to a service that is no measured question, and wait for the one answer."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from bench.asking import Broken
from bench.service import NODE, Stage
from bench.wire import Message, Wire


async def exchange(
    stage: Stage, asked: str, told: str, payload: Mapping[str, object], within_s: float = 10.0
) -> Any:
    """Return the JSON of the one answer to a message; the topics are those below the node."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def take(message: Message) -> None:
        if not answer.done():
            answer.set_result(message.payload)

    wire = await Wire.open(stage.port, "bench-once", take)
    try:
        await wire.subscribe([f"rkllm/{NODE}/{told}"])
        wire.publish([(f"rkllm/{NODE}/{asked}", json.dumps(payload).encode())])
        return json.loads(await asyncio.wait_for(answer, within_s))
    finally:
        await wire.close()


async def probed(stage: Stage) -> None:
    """Wait until the daemon knows its library: that is once, not each day.

    Raises:
        Broken: It takes too long.
    """
    for _ in range(200):
        told = await exchange(stage, "admin/request/probe", "admin/response/probe", {})
        if told["data"]["probed"]:
            return
        await asyncio.sleep(0.1)
    raise Broken("the runtime was not probed in 20 s")


async def tell(stage: Stage, client: str, request: Mapping[str, object], request_id: str = "once") -> Any:
    """Send a request that is no question; return its final.

    Raises:
        Broken: It was refused.
    """
    mailbox = f"client/{client}"
    topics = f"{mailbox}/request/{request_id}", f"{mailbox}/reply/{request_id}"
    final = await exchange(stage, *topics, request, within_s=120.0)
    if final["status"] != "ok":
        raise Broken(f"{request}: {final['error']}")
    return final
