"""What was computed is not computed again: second questions, talks in turns, a prefix after others.

The ceiling beside each figure is the arithmetic of the profile: the floor and the tokens that are new.
"""

from collections.abc import Mapping
from functools import partial
from statistics import mean
from typing import Any

from bench.context import Context
from bench.exchange import probed
from bench.figure import Figure, Goal, median
from bench.models import BOARDS, CACHED_PREFIX, Board
from bench.service import Stage
from bench.talks import Talk, Talker, system_of

_PREFIX_TOKENS = 1200
_VOICE_TOKENS = 3000
_CLIENTS = ("ann", "bob", "cem", "dia")
_OFF = {"ram_cache_mb": 0, "disk_write_mb_per_day": 0}
_MEMORY = {"ram_cache_mb": 4000}
_STEP_MS = 60.0
_FAST = Board("instant", 0.0, 0.0)


async def measure(context: Context) -> list[Figure]:
    """Measure all of it."""
    boards = (CACHED_PREFIX,) if context.quick else (CACHED_PREFIX, *BOARDS)
    figures = [await _second_question(context, board) for board in boards]
    figures += await _in_turns(context)
    figures.append(await _never_worse(context))
    figures.append(await _after_foreign_work(context))
    return figures


async def _second_question(context: Context, board: Board) -> Figure:
    """Ask twice behind one prefix; nothing else comes between."""
    async with context.stage(board.write) as stage:
        service = await stage.daemon("second", _settings(stage, probe_idle_s=None, **_OFF))
        async with Talker(stage.port) as talker:
            system = {"role": "system", "content": system_of("ann", _PREFIX_TOKENS)}
            times, computed = [], []
            for number in ("one", "two", "six", "ten"):
                question = {"role": "user", "content": f"say: {number} of us is here in the house now"}
                ms, _ = await talker.ask("ann", [system, question])
                times.append(ms)
                computed.append(sum(run.computed for run in service.library_log.new_runs()))
    cold, warm = board.first_ms(computed[0]), board.first_ms(computed[1], computed[0] - computed[1])
    again_ms = median(times[1:])
    ratio, ceiling = times[0] / again_ms, cold / warm
    bound = 23.5 if board is CACHED_PREFIX else 0.9 * ceiling
    return Figure(
        f"second question, {board.profile}: cold / warm first token", ratio, "times", None,
        Goal(bound, "at least"),
        f"{computed[0]} tokens, then {computed[1]} new; arithmetic {ceiling:.1f}; "
        f"{times[0]:.0f} and {again_ms:.0f} ms",
    )  # fmt: skip


async def _in_turns(context: Context) -> list[Figure]:
    """Let four conversations take turns, with files in memory, and as an eMMC would have them."""
    qwen25, qwen3 = BOARDS[1], BOARDS[2]
    cases: list[tuple[str, Board, tuple[str, ...], float | None]] = [
        ("files in memory", qwen25, (), 10.0),
        ("files in memory", qwen3, ("cache_load_mb_s: 1500", "cache_save_mb_s: 1000"), None),
        ("files on an eMMC of 250 MB/s", qwen3, ("cache_load_mb_s: 250", "cache_save_mb_s: 250"), None),
    ]
    figures = []
    for name, board, lines, bound in cases[:1] if context.quick else cases:
        first, later, restores = await _turns(
            context, board, lines, _MEMORY, rounds=2 if context.quick or bound is None else 4
        )
        cold, warm = mean(first), mean(later)
        goal = None if bound is None else Goal(bound, "at least")
        figures.append(
            Figure(
                f"four talks in turns, {board.profile}, {name}: cold / mean first token",
                cold / warm, "times", None, goal,
                f"{cold:.0f} and {warm:.0f} ms, {restores} restores; the floor is {board.floor_ms:.0f} ms",
            )
        )  # fmt: skip
    return figures


async def _never_worse(context: Context) -> Figure:
    """Let four conversations take turns on a disk so slow that no file is worth loading."""
    lines: tuple[str, ...] = ("floor_ms: 20", "prefill_ms_per_token: 0.4", "decode_ms_per_token: 2")
    lines += ("cache_load_mb_s: 5", "cache_save_mb_s: 5", "kv_bytes_per_token: 28672")
    _, slow, restores = await _turns(context, _FAST, lines, _MEMORY, rounds=3, pause=False)
    _, none, _ = await _turns(context, _FAST, lines, _OFF, rounds=3, pause=False)
    with_files, without = median(slow), median(none)  # a mean would tell of the machine's other work
    return Figure(
        "files slower than computing: first token, p50, with / without files", with_files / without, "times",
        None, Goal(1.05), f"{with_files:.0f} and {without:.0f} ms, {restores} restores",
    )  # fmt: skip


async def _turns(
    context: Context,
    board: Board,
    lines: tuple[str, ...],
    files: Mapping[str, Any],
    *,
    rounds: int,
    pause: bool = True,
) -> tuple[list[float], list[float], int]:
    """Return the times to the first token in the first round and in the later ones, ms, and the restores."""
    async with context.stage(lambda folder: board.write(folder, *lines)) as stage:
        await stage.daemon("turns", _settings(stage, probe_idle_s=0.2, **files))
        await probed(stage)
        times: list[list[float]] = []
        async with Talker(stage.port) as talker:
            talks = [Talk(talker, client, _PREFIX_TOKENS) for client in _CLIENTS]
            for number in range(max(2, rounds)):
                times.append([])
                for talk in talks:
                    times[-1].append(await talk.say(f"answer {number} for {talk.client}"))
                    if pause:
                        await talker.settled()
            restores = (await talker.admin("caches"))["restores"]
    return times[0], [ms for one in times[1:] for ms in one], restores


async def _after_foreign_work(context: Context) -> Figure:
    """Ask behind a registered prefix while a long answer of another client is being made."""
    board = BOARDS[1]
    async with context.stage(partial(board.write)) as stage:
        service = await stage.daemon("voice", _settings(stage, probe_idle_s=0.2, **_MEMORY))
        await probed(stage)
        async with Talker(stage.port) as talker:
            system = {"role": "system", "content": system_of("voice", _VOICE_TOKENS)}
            await talker.send("voice", {"register": "voice", "messages": [system]})
            told = await talker.until("caches", lambda told: told["files"])
            size_mb = max(file["bytes"] for file in told["files"]) / 1e6
            story = {"prompt": "story 3000 tokens", "stream": True, "priority": "background"}
            await talker.begun("reader", story)
            service.library_log.new_runs()
            question = {"role": "user", "content": "say: the light is on"}
            ms, final = await talker.ask("voice", [system, question], priority="interactive")
            runs = service.library_log.new_runs()
    new = min((run.computed for run in runs if run.computed), default=0)
    restore_ms = size_mb / 400 * 1000
    ideal = _STEP_MS + restore_ms + board.first_ms(new, _VOICE_TOKENS)
    cached, cold = final["usage"]["cached_tokens"], board.first_ms(_VOICE_TOKENS + new)
    return Figure(
        "3,000 tokens after foreign work: first token / (abort + restore + floor + new tokens)",
        ms / ideal, "times", None, Goal(1.25),
        f"{ms:.0f} ms; step {_STEP_MS:.0f}, restore of {size_mb:.0f} MB {restore_ms:.0f}, {new} new tokens; "
        f"{cached} cached; cold {cold:.0f} ms",
    )  # fmt: skip


def _settings(stage: Stage, **runtime: Any) -> dict[str, Any]:
    return {"runtime": {"library": str(stage.library), **runtime}}
