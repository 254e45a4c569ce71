"""Whether what is told comes true: times told at acceptance, and speeds that were believed wrongly at first.

Beside the times stands what a queue in order of arrival would tell: the place times the mean run.
"""

import asyncio
import json
import sqlite3

from bench import models
from bench.asking import Answer, Asker, Broken, ask_one
from bench.context import Context
from bench.figure import Figure, Goal, median
from bench.rows import waiting
from bench.service import Service, Stage
from rkllm_mqtt.core.rates import Rates
from rkllm_mqtt.core.seeds import seed_of

_CLIENTS = 4
_WRONG = 3
"""So many times faster than believed the library plays."""
_TAUGHT = 30
_ASKED = 8


async def measure(context: Context) -> list[Figure]:
    """Measure the times, then the speeds."""
    async with context.stage(models.board, {"RKLLM_SIM_SPEED": "6"}) as stage:
        times = await _times(stage, await stage.daemon("ours"), 5 if context.quick else 12)
    async with context.stage(models.board, {"RKLLM_SIM_SPEED": str(_WRONG)}) as stage:
        speeds = await _speeds(stage, await stage.daemon("ours"))
    return [times, speeds]


async def _times(stage: Stage, daemon: Service, each: int) -> Figure:
    askers = [await Asker.connect(stage.port, daemon.dialect, f"client-{n}") for n in range(_CLIENTS)]
    for number, asker in enumerate(askers):  # what each of them usually asks
        for n in range(6):
            await ask_one(asker, _usual(number, n))
    told = [_told(answer) for answer in await _told_together(askers, each)]
    for asker in askers:
        await asker.close()
    times = [one for one in told if one is not None]
    if not times:
        raise Broken("nobody was told a time")
    true = sum(abs(eta_s - real_s) <= 0.3 * real_s for eta_s, real_s, _ in times)
    run_s = max(real_s for _, real_s, _ in times) / len(times)
    in_line = sum(abs(place * run_s - real_s) <= 0.3 * real_s for _, real_s, place in times)
    return Figure(
        "times told at acceptance that came true within 30 %", 100 * true / len(times), "%",
        100 * in_line / len(times), Goal(80.0, "at least"),
        f"{len(times)} prompts of {_CLIENTS} clients at once, none after; beside it place times mean run",
    )  # fmt: skip


async def _told_together(askers: list[Asker], each: int) -> list[Answer]:
    """Ask all at once; then ask for the same again, so that each is told its time among all."""
    answers = [
        one
        for n, asker in enumerate(askers)
        for one in asker.ask([_usual(n, number) for number in range(each)])
    ]
    await waiting.accepted(answers)
    for asker in askers:
        asker.repeat()
    await waiting.accepted(answers, 2)
    for asker in askers:
        await asker.done()
    return answers


def _usual(client: int, number: int) -> models.Question:
    """Return what a client asks: each has a usual length, give or take some."""
    return models.say(number, 4 + 8 * client + number % 3)


def _told(answer: Answer) -> tuple[float, float, int] | None:
    """Return the time told, the real one and the place; None for a prompt that had begun before."""
    events = [(at, json.loads(payload)) for at, payload in answer.events]
    accepted_at, accepted = [(at, event) for at, event in events if event["type"] == "accepted"][-1]
    started_at = next((at for at, event in events if event["type"] == "started"), None)
    if (
        not accepted["position"]
        or accepted["eta_s"] is None
        or started_at is None
        or started_at < accepted_at
    ):
        return None
    return accepted["eta_s"], (started_at - accepted_at) / 1e9, accepted["position"]


async def _speeds(stage: Stage, daemon: Service) -> Figure:
    """Teach a daemon that believes in a third of the speed; hold what it believes then against new runs."""
    asker = await Asker.connect(stage.port, daemon.dialect.at("interactive"), "teacher")  # in one piece
    for number in range(_TAUGHT):
        await ask_one(asker, _varied(number))
    daemon.library_log.new_runs()
    asked = [await ask_one(asker, _varied(_TAUGHT + number)) for number in range(_ASKED)]
    runs = daemon.library_log.new_runs()
    await asker.close()
    await asyncio.to_thread(daemon.stop)  # which stores what was learned from all of them
    if len(runs) != len(asked):
        raise Broken(f"{len(runs)} runs for {len(asked)} prompts")
    believed, learned = Rates(seed_of()), Rates(seed_of())
    learned.resume(_kept(stage))
    wrong: tuple[list[float], list[float]] = [], []
    for answer, run in zip(asked, runs, strict=True):
        usage = json.loads(answer.finals[0][1])["usage"]
        for rates, errors in zip((believed, learned), wrong, strict=True):
            told_s = rates.slot_s(usage["prompt_tokens"], usage["cached_tokens"], usage["completion_tokens"])
            errors.append(abs(told_s / run.slot_s - 1) * 100)
    note = f"worst of {_ASKED}, p50 {median(wrong[1]):.1f} %; at first p50 {median(wrong[0]):.0f} %"
    return Figure(
        f"speeds wrong by {_WRONG} after {_TAUGHT} runs: slot times are wrong by", max(wrong[1]), "%", None,
        Goal(15.0), note,
    )  # fmt: skip


def _varied(number: int) -> models.Question:
    """Return questions of many lengths, as are their answers."""
    if number % 3 == 0:
        return models.buried(number, 60 + 37 * (number % 7))
    return models.say(number, 4 + 5 * (number % 8))


def _kept(stage: Stage) -> dict[str, object]:
    """Return the rates that the daemon has stored."""
    journal = sqlite3.connect(stage.folder / "ours.db")
    try:
        rows = journal.execute("SELECT value FROM meta WHERE key LIKE 'rates:bench:%'").fetchall()
    finally:
        journal.close()
    if len(rows) != 1:
        raise Broken(f"{len(rows)} models have learned rates")
    kept: dict[str, object] = json.loads(rows[0][0])
    return kept
