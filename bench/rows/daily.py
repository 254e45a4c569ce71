"""A day of a home, replayed: how long a person waits for the first word, and what the rest of the house gets.

The voice registers the beginning of its prompts and tells when its wake word is heard, 2 s before a question.
Beside the daemon stand two relays that answer first come first served: one on a library that computes each
prompt whole, one on the same library that reuses the beginning of the prompt before. All times are those of
the board: the library runs _SPEED times as fast, and what the machine itself takes counts as many times.
Idle times are cut short, for the daemon to _IDLE_S: it has to do in them what it does in idle times.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench import models
from bench.asking import Answer, Asker, Broken
from bench.context import Context
from bench.exchange import probed, tell
from bench.figure import Figure, median, percentile
from bench.home import HOURS, LISTENS_S, SYSTEM, VOICE_TOKENS, Arrival, Who, day
from bench.library_log import LibraryLog
from bench.models import Question
from bench.service import Service

_SPEED = 10.0
_IDLE_S = 5.0
_RELAY_IDLE_S = 1.0
_OWN_TOKENS = VOICE_TOKENS + 6
"""Of a question: its words, and those of the template around them."""
_PRIORITIES: Mapping[Who, str] = {"voice": "interactive", "sensor": "normal", "summary": "background"}


@dataclass(frozen=True, slots=True)
class Day:
    """What came of it; seconds of the board."""

    first_word_s: list[float]
    """Of the voice's questions."""
    sensor_s: list[float]
    """From a sensor's prompt to its whole answer."""
    summary_s: list[float]
    slot_s: float
    """Time that the library worked."""
    ready_s: float
    """Of it, on what was made ready before it was asked for."""
    voice_tokens: int
    """Of the longest prompt of the voice that was computed."""
    written_mb: float
    """To the disk."""


async def measure(context: Context) -> list[Figure]:
    """Replay the day three times."""
    arrivals = day(HOURS[:1])[:60] if context.quick else day()
    ours = await _daemon(context, arrivals)
    fifo = await _relay(context, arrivals, reuse=False)
    reusing = await _relay(context, arrivals, reuse=True)
    warm_s = (models.HOME_FLOOR_MS + models.HOME_PREFILL_MS * _OWN_TOKENS) / 1000
    cold_s = (models.HOME_FLOOR_MS + models.HOME_PREFILL_MS * fifo.voice_tokens) / 1000
    note = f"{len(ours.first_word_s)} questions, prompts of {fifo.voice_tokens} tokens; "
    figures = [
        Figure(
            f"a day: first word, p{percent}",
            percentile(ours.first_word_s, percent), "s",
            percentile(fifo.first_word_s, percent), None,
            note + f"first come first served; with reuse {percentile(reusing.first_word_s, percent):.2f} s; "
            f"arithmetic: warm {warm_s:.2f}, cold {cold_s:.2f}",
        )
        for percent in (50, 95)
    ]  # fmt: skip
    for name, of in (("sensors", "sensor_s"), ("summaries", "summary_s")):
        mine, theirs, again = (getattr(one, of) for one in (ours, fifo, reusing))
        figures.append(
            Figure(
                f"a day: {name}, whole answer, p95",
                percentile(mine, 95), "s", percentile(theirs, 95), None,
                f"{len(mine)} prompts, p50 {median(mine):.2f} s; with reuse {percentile(again, 95):.2f} s",
            )
        )  # fmt: skip
    background = len(ours.sensor_s) + len(ours.summary_s)
    figures += [
        Figure(
            "a day: background answers, per hour of slot time",
            3600 * background / (ours.slot_s - ours.ready_s), "", 3600 * background / fifo.slot_s, None,
            f"slot time of all answers, the voice's too: {ours.slot_s - ours.ready_s:.0f} s; in idle times "
            f"and at wake words {ours.ready_s:.0f} s more; first come first served {fifo.slot_s:.0f} s, "
            f"with reuse {reusing.slot_s:.0f} s",
        ),
        Figure(
            "a day: written to the disk", ours.written_mb, "MB", fifo.written_mb, None,
            f"by the daemon and its library in {len(arrivals)} prompts; memory files are none",
        ),
    ]  # fmt: skip
    return figures


async def _daemon(context: Context, arrivals: list[Arrival]) -> Day:
    environ = {"RKLLM_SIM_SPEED": f"{_SPEED:g}"}
    async with context.stage(lambda folder: models.home(folder, reuse=True), environ) as stage:
        clients = [{"name": who, "system": text} for who, text in SYSTEM.items()]
        service = await stage.daemon("home", {"clients": clients, "runtime": stage.probing})
        await probed(stage)
        askers = {
            who: await Asker.connect(
                stage.port, replace(service.dialect, members={"priority": priority}), who
            )
            for who, priority in _PRIORITIES.items()
        }
        await tell(stage, "voice", {"register": "voice", "messages": [_system("voice")]})
        return await _replay(arrivals, askers, service, _IDLE_S, {})


async def _relay(context: Context, arrivals: list[Arrival], *, reuse: bool) -> Day:
    environ = {"RKLLM_SIM_SPEED": f"{_SPEED:g}"}
    async with context.stage(lambda folder: models.home(folder, reuse=reuse), environ) as stage:
        service = await stage.thin()
        askers = {who: await Asker.connect(stage.port, service.dialect, who) for who in _PRIORITIES}
        return await _replay(arrivals, askers, service, _RELAY_IDLE_S, SYSTEM)


async def _replay(
    arrivals: list[Arrival],
    askers: Mapping[Who, Asker],
    service: Service,
    idle_s: float,
    before: Mapping[Who, str],
) -> Day:
    """Ask everything in its time.

    Args:
        arrivals: In order.
        askers: One for each of those who ask.
        service: Who answers.
        idle_s: What is left of a time in which nothing is to be done, seconds of the board.
        before: What a prompt begins with, where the service does not know.
    """
    answers: dict[Who, list[Answer]] = {who: [] for who in askers}
    log = LibraryLog(service.library_log.path)
    log.new_runs()
    written = _written_bytes(service)
    loop = asyncio.get_running_loop()
    now_s, real_s = arrivals[0].at_s - LISTENS_S, loop.time()
    for arrival in _with_wake_words(arrivals):
        for asker in askers.values():  # time goes on while somebody waits, and is cut when nobody does
            until = real_s + (arrival.at_s - now_s) / _SPEED
            await _done_or(asker, until - loop.time())
        due_s = now_s + (loop.time() - real_s) * _SPEED
        if arrival.at_s > due_s:
            await asyncio.sleep(min(arrival.at_s - due_s, idle_s) / _SPEED)
            real_s, now_s = loop.time(), arrival.at_s
        asked = arrival.question
        if asked is None:
            if not before:
                askers[arrival.who].wire.publish([_warm(service, arrival.at_s)])
            continue
        prompt = f"{before[arrival.who]}\n{asked.prompt}" if before else asked.prompt
        answers[arrival.who] += askers[arrival.who].ask([Question(prompt, asked.answer, asked.tokens)])
    for who, asker in askers.items():
        await asker.done()
        for answer in answers[who]:
            answer.check(asker.dialect)
    runs = log.new_runs()
    written_mb = (_written_bytes(service) - written) / 1e6
    for asker in askers.values():
        await asker.close()
    return Day(
        [_board_s(answer.first_ns - answer.asked_ns) for answer in answers["voice"]],
        [_board_s(answer.final_ns - answer.asked_ns) for answer in answers["sensor"]],
        [_board_s(answer.final_ns - answer.asked_ns) for answer in answers["summary"]],
        slot_s := sum(run.slot_s for run in runs) * _SPEED,
        0.0 if before else slot_s - sum(map(_worked_s, itertools.chain(*answers.values()))),
        # The step that finds the end of the answer is one more.
        max((run.computed for run in runs if run.tokens == VOICE_TOKENS + 1), default=0),
        written_mb,
    )


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    who: Who
    question: Question | None
    """None: a wake word."""


def _with_wake_words(arrivals: list[Arrival]) -> list[_Moment]:
    moments = [_Moment(one.at_s, one.who, one.question) for one in arrivals]
    moments += [_Moment(one.at_s - LISTENS_S, one.who, None) for one in arrivals if one.is_heard_before]
    return sorted(moments, key=lambda one: one.at_s)


def _warm(service: Service, at_s: float) -> tuple[str, bytes]:
    """Return what a satellite sends when it begins to listen."""
    topic = f"{service.dialect.mailbox('voice')}/request/wake-{at_s:.0f}"
    return topic, json.dumps({"warm": "voice", "hold_s": 6}).encode()


def _system(who: Who) -> dict[str, str]:
    return {"role": "system", "content": SYSTEM[who]}


async def _done_or(asker: Asker, seconds: float) -> None:
    """Wait until all is answered, at most so long."""
    if seconds > 0:
        try:
            await asker.done(seconds)
        except Broken:
            return


def _written_bytes(service: Service) -> int:
    """Return what the processes of a service have written to disks."""
    pids = [service.child.pid]
    with contextlib.suppress(ProcessLookupError):  # a relay has one process
        pids.append(service.worker_pid)
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/io").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def _worked_s(answer: Answer) -> float:
    """Return the slot time of an answer as its final tells it, seconds of the board."""
    timing = json.loads(answer.finals[0][1])["timing"]
    return _board_s((timing["prefill_ms"] + timing["generate_ms"]) * 1e6)


def _board_s(ns: float) -> float:
    return ns / 1e9 * _SPEED
