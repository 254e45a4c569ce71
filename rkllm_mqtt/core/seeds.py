"""What is believed of a model's speed before its first run here: Rockchip's table for the RK3588.

Pure. The table (SDK 1.3.0, w8a8, prompt of 128 tokens, 64 new ones, clocks fixed at maximum) has the time to
the first token and the tokens per second; how both grow with the context is assumed until runs taught it.
"""

import re

from msgspec import Struct

_TABLE_PROMPT = 128
_FAR = 4096
"""Tokens of context at which the assumptions below are told."""
_FLOOR_STEPS = 1.5
# An identical prompt took 97 ms to its first token where a step took about 60 ms (Orange Pi 5 Max, 1.3.0).
_PREFILL_GROWTH = 0.5
_STEP_GROWTH = 0.3

_ROWS = (
    (r"qwen2(?!\.5).*0\.5b", 145.90, 41.58),
    (r"qwen2\.?5.*0\.5b", 145.90, 41.58),  # not in the table; the architecture of its predecessor
    (r"qwen2\.?5.*1\.5b|qwen2.*1\.5b", 378.31, 16.69),
    (r"qwen3\.5.*0\.8b", 587.74, 27.05),
    (r"qwen3\.5.*2b", 776.95, 13.59),
    (r"qwen3\.5.*4b", 2068.88, 6.22),
    (r"qwen3.*vl.*2b", 383.62, 14.98),
    (r"qwen3.*0\.6b", 199.09, 32.91),
    (r"tiny.?llama", 243.93, 24.43),
    (r"gemma.?2.*2b", 598.41, 10.37),
    (r"gemma.?3n.*2b", 1124.51, 9.91),
    (r"gemma.?4.*e2b", 599.06, 11.12),
    (r"minicpm.?4.*0\.5b", 135.29, 45.34),
    (r"minicpm.?3.*4b", 1408.49, 5.94),
    (r"phi.?3", 1017.28, 7.45),
    (r"chatglm.?3", 1352.94, 4.98),
)
_USUAL = (378.31, 16.69)
"""Qwen2.5 1.5B, for a model that the table does not know."""


class Seed(Struct, frozen=True):
    """The rates of a model as believed; milliseconds, tokens."""

    floor_ms: float
    """To the first token when the whole prompt is cached."""
    prefill_ms: float
    """For each uncached token."""
    attention_ms: float
    """For each pair of an uncached token and a token that it looks back at."""
    step_ms: float
    """For one token of the answer, at no context."""
    step_slope_ms: float
    """More for each token of context."""
    known: bool = False
    """The table has this model; else it is a guess that no sender should be told."""

    def step_at(self, context: float) -> float:
        """Return the milliseconds of one token at so many tokens of context."""
        return self.step_ms + self.step_slope_ms * context


def seed_of(*names: str) -> Seed:
    """Return what is believed of a model with these names: its id, its file."""
    for name in names:
        for pattern, ttft_ms, tokens_per_s in _ROWS:
            if re.search(pattern, name.lower()):
                return seed_from(ttft_ms, tokens_per_s, known=True)
    return seed_from(*_USUAL)


def seed_from(ttft_ms: float, tokens_per_s: float, *, known: bool = False) -> Seed:
    """Return the rates that fit a row of the table."""
    step = 1000 / tokens_per_s
    floor = min(_FLOOR_STEPS * step, 0.6 * ttft_ms)
    growth = 2 * _PREFILL_GROWTH / _FAR
    prefill = (ttft_ms - floor) / (_TABLE_PROMPT * (1 + growth * _TABLE_PROMPT / 2))
    empty_step = step / (1 + _STEP_GROWTH * (_TABLE_PROMPT + 32) / _FAR)
    return Seed(floor, prefill, prefill * growth, empty_step, empty_step * _STEP_GROWTH / _FAR, known)
