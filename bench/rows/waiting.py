"""What prompts cost that wait: how fast a burst is accepted, and the memory of each beyond its text.

The slot is paused, so that nothing leaves the queue. The memory of one prompt is the growth between two
lengths of the queue, filled in bursts of 1,000: what the first burst makes of caches and buffers stays out.
"""

import asyncio
import json
from itertools import pairwise

from bench import models
from bench.asking import Answer, Asker, Broken
from bench.child import footprint
from bench.context import Context
from bench.figure import Figure, Goal
from bench.models import Question
from bench.service import NODE, Service, Stage
from bench.wire import Message, Wire

_TEXT_BYTES = 200
_SENDERS = 10
_STEP = 1000
_BURST = 5000
_ACCEPTED_S = 30.0


async def measure(context: Context) -> list[Figure]:
    """Fill a queue step by step, and weigh it."""
    few, many = (200, 1000) if context.quick else (1000, 10_000)
    async with context.stage(models.instant) as stage:
        cost, first_cost = await _growth(stage, await stage.daemon("ours"), few, many)
    return [
        Figure(
            f"memory of a waiting prompt, {few:,} to {many:,}", cost, "bytes", None,
            Goal(2000, text="< 2 kB"),
            f"prompts of {_TEXT_BYTES} bytes, streaming; less the text; the first {few:,}: {first_cost:,.0f}",
        )
    ]  # fmt: skip


async def measure_burst(context: Context) -> list[Figure]:
    """Fill a queue at a stroke."""
    burst = 500 if context.quick else _BURST
    async with context.stage(models.instant) as stage:
        rate, grown_mb = await _burst(stage, await stage.daemon("ours"), burst)
    return [
        Figure(
            f"a burst of {burst:,} prompts: accepted", rate, "prompts/s", None, None,
            f"on disk and told so; the daemon grew by {grown_mb:.0f} MB",
        )
    ]  # fmt: skip


async def _growth(stage: Stage, service: Service, few: int, many: int) -> tuple[float, float]:
    """Return the bytes that a prompt costs beyond its text: between `few` and `many`, and the first `few`."""
    await pause(stage.port)
    askers = await _askers(stage, service)
    sizes = [footprint(service.child.pid).rss_mb]
    waiting = 0
    for wanted in (few, many):
        while waiting < wanted:
            step = min(_STEP, wanted - waiting)
            await accepted(_ask(askers, waiting, step))
            waiting += step
        sizes.append(footprint(service.child.pid).rss_mb)
    for asker in askers:
        await asker.close()
    first, later = (after - before for before, after in pairwise(sizes))
    return later * 2**20 / (many - few) - _TEXT_BYTES, first * 2**20 / few - _TEXT_BYTES


async def _burst(stage: Stage, service: Service, count: int) -> tuple[float, float]:
    """Return prompts accepted a second, and the growth of the daemon in megabytes."""
    await pause(stage.port)
    askers = await _askers(stage, service)
    before = footprint(service.child.pid).rss_mb
    answers = _ask(askers, 0, count)
    await accepted(answers)
    last_ns = max(answer.events[0][0] for answer in answers)
    grown_mb = footprint(service.child.pid).rss_mb - before
    for asker in askers:
        await asker.close()
    return count / ((last_ns - answers[0].asked_ns) / 1e9), grown_mb


async def _askers(stage: Stage, service: Service) -> list[Asker]:
    return [await Asker.connect(stage.port, service.dialect, f"sender{n}") for n in range(_SENDERS)]


def _ask(askers: list[Asker], start: int, count: int) -> list[Answer]:
    share = count // len(askers)
    answers: list[Answer] = []
    for number, asker in enumerate(askers):
        answers += asker.ask([_question(start + number * share + n) for n in range(share)])
    return answers


async def accepted(answers: list[Answer], times: int = 1) -> None:
    """Wait until all are on disk and their senders told so, so often."""
    ends_at = asyncio.get_running_loop().time() + _ACCEPTED_S
    while missing := sum(len(one.events) < times for one in answers):
        if asyncio.get_running_loop().time() > ends_at:
            raise Broken(f"{missing} of {len(answers)} prompts were not accepted in {_ACCEPTED_S:g} s")
        await asyncio.sleep(0.02)


def _question(number: int) -> Question:
    return Question(f"say: {number:06} ".ljust(_TEXT_BYTES, "x"), "", 0)


async def pause(port: int) -> None:
    """Let accepted prompts wait."""
    await command(port, "pause")


async def command(port: int, name: str) -> None:
    """Give an admin command."""
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def take(message: Message) -> None:
        if not answered.done():
            answered.set_result(message.payload)

    wire = await Wire.open(port, "administrator", take)
    await wire.subscribe([f"rkllm/{NODE}/admin/response/+"])
    wire.publish([(f"rkllm/{NODE}/admin/request/{name}", b"{}")])
    try:
        if json.loads(await asyncio.wait_for(answered, 20))["status"] != "ok":
            raise Broken(f"the daemon refused `{name}`")
    except TimeoutError as exc:
        raise Broken(f"the daemon did not answer `{name}`") from exc
    finally:
        await wire.close()
