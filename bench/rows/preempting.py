"""What an interactive prompt waits that arrives in the middle of somebody else's work, and what that costs.

Decoding: a long background answer is under way at the pace of an RK3588 and 50 prompts wait behind it. Added
is what comes on top of the first token of the same prompt on an idle slot. Prefill: a background prompt of
4,000 tokens is being computed. The thin relay, first come first served, answers the same in its order.
"""

import asyncio
import json
import random
from dataclasses import replace

from bench import models
from bench.asking import Answer, Asker, Broken, ask_one
from bench.context import Context
from bench.figure import Figure, Goal, median, percentile
from bench.service import Service, Stage

_BEHIND = 50
_LONG = models.count(160)
_VOICE = 3
"""Tokens of an interactive answer."""
_PROMPT_WORDS = 2_050
"""About 4,000 tokens."""


async def measure(context: Context) -> list[Figure]:
    """Interrupt an answer again and again; then interrupt a prefill."""
    rounds = context.rounds(40)
    async with context.stage(models.origin) as stage:
        daemon = await stage.daemon("ours")
        added, discarded, made, cost_ms = await _while_decoding(stage, daemon, rounds)
    async with context.stage(models.origin) as stage:
        waited = await _in_line(stage, await stage.thin())
    async with context.stage(models.board) as stage:
        prefill_ms, chunk_ms, whole_ms = await _while_prefilling(stage, await stage.daemon("ours"))
    return [
        Figure(
            "an interactive prompt amid a background answer: added to its first token, p95",
            percentile(added, 95), "ms", waited, Goal(150.0),
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
            f"worst; the longest chunk took {chunk_ms:.0f} ms; beside it the prefill in one piece, "
            "Qwen2.5 1.5B",
        ),
    ]  # fmt: skip


async def _while_decoding(stage: Stage, daemon: Service, rounds: int) -> tuple[list[float], int, int, float]:
    """Return what was added each time (ms), tokens made twice, tokens made, and the cost of going on (ms)."""
    voice = await _asker(stage, daemon, "voice", "interactive")
    alone = [await ask_one(voice, models.say(number, _VOICE)) for number in range(6)]
    idle_ms = median([_first_ms(answer) for answer in alone])
    machine = await _asker(stage, daemon, "machine", "background")
    crowd = [await _asker(stage, daemon, f"crowd-{n}", "background") for n in range(5)]
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
        asker.wire.publish([(f"rkllm/bench/client/{asker.client}/cancel", b'{"all": true}')])
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


async def _while_prefilling(stage: Stage, daemon: Service) -> tuple[float, float, float]:
    """Return the worst added wait, the longest chunk, and the prefill in one piece, all in milliseconds."""
    voice = await _asker(stage, daemon, "voice", "interactive")
    machine = await _asker(stage, daemon, "machine", "background")
    alone = [await ask_one(voice, models.say(number, _VOICE)) for number in range(4)]
    idle_ms = median([_first_ms(answer) for answer in alone])
    # Learns how long a token is, and that chunks help.
    await ask_one(machine, models.buried(0, _PROMPT_WORDS))
    worst, longest = 0.0, 0.0
    for number in range(1, 4):
        daemon.library_log.new_runs()
        (long,) = machine.ask([models.buried(number, _PROMPT_WORDS)])
        await asyncio.sleep(0.7 + number)
        answer = await ask_one(voice, models.say(number, _VOICE))
        worst = max(worst, _first_ms(answer) - idle_ms)
        await machine.done()
        long.check(daemon.dialect)
        longest = max(
            [longest, *(run.slot_s * 1000 for run in daemon.library_log.new_runs() if run.tokens == 1)]
        )
    plain = await _asker(stage, daemon, "plain", "interactive")
    whole = await ask_one(plain, models.buried(9, _PROMPT_WORDS))
    for asker in (voice, machine, plain):
        await asker.close()
    return worst, longest, _first_ms(whole)


async def _asker(stage: Stage, service: Service, client: str, priority: str) -> Asker:
    dialect = replace(service.dialect, members={**service.dialect.members, "priority": priority})
    return await Asker.connect(stage.port, dialect, client)


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
