"""What an interactive prompt waits that arrives in the middle of somebody else's work, and what that costs.

Decoding: a long background answer is under way at the pace of an RK3588 and 50 prompts wait behind it. Added
is what comes on top of the first token of the same prompt on an idle slot. Prefill: a background prompt of
4,000 tokens is being computed. The thin relay, first come first served, answers the same in its order.
"""

import asyncio
import json
import random

from bench import models
from bench.asking import Answer, Asker, Broken, ask_one
from bench.context import Context
from bench.figure import Figure, Goal, median, percentile
from bench.service import Service, Stage

_BEHIND = 50
_LONG = models.count(80)
_VOICE = 3
"""Tokens of an interactive answer."""
_PROMPT_WORDS = 2_050
"""About 4,000 tokens."""


async def measure(context: Context) -> list[Figure]:
    """Interrupt an answer again and again; then interrupt a prefill."""
    rounds = context.rounds(20)
    async with context.stage(models.origin) as stage:
        daemon = await stage.daemon("ours")
        added, discarded, made, cost_ms = await _while_decoding(stage, daemon, rounds)
    # All three of them sleep nearly all the time.
    (prefill_ms, chunk_ms), waited_ms, whole_ms = await asyncio.gather(
        _prefilling(context), _waited(context), _whole(context)
    )
    return [
        Figure(
            "an interactive prompt amid a background answer: added to its first token, p95",
            percentile(added, 95), "ms", waited_ms, Goal(150.0),
            f"{len(added)} prompts, p50 {median(added):.0f} ms, {_BEHIND} more waiting, "
            f"{models.STEP_MS} ms a token; the relay with two waiting",
        ),
        Figure(
            "tokens made twice because of it", 100 * discarded / made, "%", None, Goal(5.0),
            f"{discarded} of {made}; the answer was interrupted {len(added)} times and is complete, gapless "
            f"and right; each interruption cost {cost_ms:.0f} ms of slot time",
        ),
        Figure(
            "an interactive prompt amid a background prefill of 4,000 tokens: added",
            prefill_ms, "ms", whole_ms, Goal(chunk_ms + 100, text="a chunk + 100 ms"),
            f"worst; the longest chunk took {chunk_ms:.0f} ms; Qwen2.5 1.5B; the relay: nothing else waits",
        ),
    ]  # fmt: skip


async def _prefilling(context: Context) -> tuple[float, float]:
    async with context.stage(models.board) as stage:
        return await _while_prefilling(stage, await stage.daemon("ours"), context.rounds(4))


async def _waited(context: Context) -> float:
    async with context.stage(models.origin) as stage:
        return await _in_line(stage, await stage.thin())


async def _whole(context: Context) -> float:
    async with context.stage(models.board) as stage:
        return await _behind_a_prefill(stage, await stage.thin())


async def _while_decoding(stage: Stage, daemon: Service, rounds: int) -> tuple[list[float], int, int, float]:
    """Return what was added each time (ms), tokens made twice, tokens made, and the cost of going on (ms)."""
    voice = await Asker.connect(stage.port, daemon.dialect.at("interactive"), "voice")
    alone = [await ask_one(voice, models.say(number, _VOICE)) for number in range(6)]
    idle_ms = median([_first_ms(answer) for answer in alone])
    machine = await Asker.connect(stage.port, daemon.dialect.at("background"), "machine")
    crowd = [await Asker.connect(stage.port, daemon.dialect.at("background"), f"crowd-{n}") for n in range(5)]
    daemon.library_log.new_runs()
    (long,) = machine.ask([_LONG])
    await _has_deltas(long)
    for number, asker in enumerate(crowd):
        asker.ask([models.say(number * 10 + n, 2) for n in range(_BEHIND // len(crowd))])
    added: list[float] = []
    for number in range(rounds):
        if long.finals:
            break
        seen = len(long.deltas)
        await asyncio.sleep(random.uniform(0.15, 0.25))
        answer = await ask_one(voice, models.say(number, _VOICE))
        added.append(_first_ms(answer) - idle_ms)
        await _has_deltas(long, seen + 4)
    await machine.done(240)
    long.check(daemon.dialect)
    final = json.loads(long.finals[0][1])
    for asker in crowd:
        asker.cancel()
    runs = daemon.library_log.new_runs()
    answers = [long, *voice.answers[6:], *(one for asker in crowd for one in asker.answers if one.finals)]
    # Each answer that ended by itself has one step more, which found its end.
    useful = sum(_tokens(one) + 1 for one in answers)
    made = sum(run.tokens for run in runs)
    for asker in (voice, machine, *crowd):
        await asker.close()
    slots_ms = sum(run.slot_s for run in runs) * 1000
    ideal_ms = sum(models.PREFILL_MS + _tokens(one) * models.STEP_MS for one in answers)
    cost_ms = (slots_ms - ideal_ms) / max(1, len(added))
    return added, max(0, made - useful), final["usage"]["completion_tokens"], cost_ms


async def _in_line(stage: Stage, thin: Service) -> float:
    """Return what a prompt waits longer behind a long answer and two more, first come first served."""
    asker = await Asker.connect(stage.port, thin.dialect, "all")
    idle_ms = _first_ms(await ask_one(asker, models.say(0, _VOICE)))
    long, *_ = asker.ask([models.count(30), models.say(1, 2), models.say(2, 2)])
    await _has_deltas(long)
    (voice,) = asker.ask([models.say(3, _VOICE)])
    await asker.done()
    await asker.close()
    return _first_ms(voice) - idle_ms


async def _while_prefilling(stage: Stage, daemon: Service, rounds: int) -> tuple[float, float]:
    """Return the worst added wait and the longest chunk, milliseconds."""
    voice = await Asker.connect(stage.port, daemon.dialect.at("interactive"), "voice")
    machine = await Asker.connect(stage.port, daemon.dialect.at("background"), "machine")
    alone = [await ask_one(voice, models.say(number, _VOICE)) for number in range(4)]
    idle_ms = median([_first_ms(answer) for answer in alone])
    worst, longest = 0.0, 0.0
    for number in range(rounds):
        daemon.library_log.new_runs()
        (long,) = machine.ask([models.buried(number, _PROMPT_WORDS)])
        await _has(long, "started")
        # Within a chunk, each time within another one: the later, the more each token has to look back at.
        await asyncio.sleep(0.7 + 2.3 * number)
        answer = await ask_one(voice, models.say(number, _VOICE))
        worst = max(worst, _first_ms(answer) - idle_ms)
        if number < rounds - 1:
            machine.cancel()
        await machine.done()
        chunks = [run.slot_s * 1000 for run in daemon.library_log.new_runs() if run.tokens == 1]
        longest = max([longest, *chunks])
    long.check(daemon.dialect)
    for asker in (voice, machine):
        await asker.close()
    return worst, longest


async def _behind_a_prefill(stage: Stage, thin: Service) -> float:
    """Return what a prompt waits longer behind a prefill in one piece, first come first served."""
    asker = await Asker.connect(stage.port, thin.dialect, "all")
    idle_ms = _first_ms(await ask_one(asker, models.say(0, _VOICE)))
    asker.ask([models.buried(1, _PROMPT_WORDS)])
    await asyncio.sleep(0.7)
    (voice,) = asker.ask([models.say(3, _VOICE)])
    await asker.done()
    await asker.close()
    return _first_ms(voice) - idle_ms


def _first_ms(answer: Answer) -> float:
    return (answer.first_ns - answer.asked_ns) / 1e6


def _tokens(answer: Answer) -> int:
    tokens: int = json.loads(answer.finals[0][1])["usage"]["completion_tokens"]
    return tokens


async def _has_deltas(answer: Answer, count: int = 3) -> None:
    ends_at = asyncio.get_running_loop().time() + 60
    while len(answer.deltas) < count and not answer.finals:
        if asyncio.get_running_loop().time() > ends_at:
            raise Broken("no deltas came")
        await asyncio.sleep(0.005)


async def _has(answer: Answer, kind: str) -> None:
    ends_at = asyncio.get_running_loop().time() + 60
    while answer.event(kind) is None:
        if asyncio.get_running_loop().time() > ends_at:
            raise Broken(f"no event {kind} came")
        await asyncio.sleep(0.005)
