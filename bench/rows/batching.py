"""Prompts that run together: how much longer a batch takes than one, beside what the arithmetic allows.

A batch of n computes n prompts, each as long as alone, and then steps that cost 1 + (n - 1) · slope each.
Every column's text is checked; times are the library's own, from entry to return.
"""

import json

from bench import models
from bench.asking import Asker
from bench.context import Context
from bench.figure import Figure, Goal, median

_TOKENS = 60
_SLOPES = (0.0, 0.25, 1.0)
_COLUMNS = (1, 2, 4, 8)
_GOAL = 1.45


async def measure(context: Context) -> list[Figure]:
    """Run 1, 2, 4 and 8 prompts together at three costs of a column."""
    figures = []
    for slope in (0.25,) if context.quick else _SLOPES:
        one_s, one_tokens = 0.0, 0
        for columns in (1, 4) if context.quick else _COLUMNS:
            took_s, prefilled = await _batch(context, slope, columns)
            # A batch tells the tokens of its prompts only as estimates; they are all as long as the first.
            one_s, one_tokens = one_s or took_s, one_tokens or prefilled
            steps_s = models.BATCH_STEP_MS * _TOKENS * (1 + (columns - 1) * slope) / 1000
            first_s = (models.BATCH_FLOOR_MS + models.BATCH_PREFILL_MS * columns * one_tokens) / 1000
            rate = columns * _TOKENS / took_s
            goal = Goal(_GOAL) if (columns, slope) == (4, 0.0) else None
            figures.append(
                Figure(
                    f"batch of {columns}, slope {slope:g} / one", took_s / one_s, "x", None, goal,
                    f"arithmetic {(first_s + steps_s) / one_s:.2f}; {rate:.0f} tokens/s",
                    {"took_s": took_s, "one_s": one_s, "prefill_tokens": prefilled},
                )
            )  # fmt: skip
    return [*figures, await _fallback(context)]


async def _batch(context: Context, slope: float, columns: int) -> tuple[float, int]:
    """Return the slot time of a batch, and the tokens of its prompts as the finals tell them."""
    async with context.stage(lambda folder: models.batching(folder, slope)) as stage:
        model = {"id": "bench", "file": str(stage.model), "n_batch": columns}
        service = await stage.daemon("batch", {"models": [model], "runtime": _runtime(stage.library)})
        asker = await Asker.connect(stage.port, service.dialect, "many")
        answers = asker.ask([models.say(7 * number + 1, _TOKENS) for number in range(columns)])
        await asker.done()
        for answer in answers:
            answer.check(service.dialect)
        await asker.close()
        runs = service.library_log.new_runs()
        prompts = sum(json.loads(answer.finals[0][1])["usage"]["prompt_tokens"] for answer in answers)
        return sum(run.slot_s for run in runs), prompts


async def _fallback(context: Context) -> Figure:
    """Let the library die in its first batch, several times; each time a daemon that does not know that."""
    usable_ms: list[float] = []
    for number in range(context.rounds(3)):
        prompts = context.notes / f"asserting-{number}.prompts"
        async with context.stage(models.asserting, {"RKLLM_SIM_PROMPTS": str(prompts)}) as stage:
            model = {"id": "bench", "file": str(stage.model), "n_batch": 4}
            service = await stage.daemon("batch", {"models": [model], "runtime": _runtime(stage.library)})
            asker = await Asker.connect(stage.port, service.dialect, "many")
            answers = asker.ask([models.say(7 * number + 1, 4) for number in range(8)])
            await asker.done()
            for answer in answers:
                answer.check(service.dialect)
            await asker.close()
            began_ns = json.loads(prompts.read_text().splitlines()[0])["begin_ns"]
            usable_ms.append((service.library_log.new_runs()[0].entry_ns - began_ns) / 1e6 - models.LOAD_MS)
    return Figure(
        "batch that ends the process to the first single run, less the load, worst",
        max(usable_ms), "ms", None, Goal(1000),
        f"{len(usable_ms)} daemons, p50 {median(usable_ms):.0f} ms; 8 prompts, 4 of them in it, all answered",
        {"usable_ms": usable_ms},
    )  # fmt: skip


def _runtime(library: object) -> dict[str, object]:
    # All are asked at once; a slow machine must not cut the batch in two.
    return {"library": str(library), "batch_window_ms": 200}
