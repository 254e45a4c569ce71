"""How long the slot needs for a prompt and its answer: a robust fit to the real runs of one model.

Pure. The time to the first token is floor + c·uncached + q·uncached·(cached + uncached/2); a step of the
answer depends on the context that it looks back at, in buckets that double.

Rule 1: one strange run (a stall, another user of the NPU) moves nothing: medians, and weights that fade.
Rule 2: what the runs do not tell apart keeps the proportions of the seed.
Rule 3: old runs are forgotten, so that a hotter or a mended board is learned again.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from msgspec import Struct, field

from rkllm_mqtt.core.seeds import Seed

_KEPT_PREFILLS = 48
_KEPT_STEPS = 15
_BUCKET_TOKENS = 256
_BUCKETS = 8
_TRUST = 0.005
"""Weight of the seed's proportions beside that of one run."""
_LEAST = 0.02
"""No part of the fit falls below this share of its seed: time does not run backwards."""
_ROUNDS = 3
_SHORTEST_MS = 0.001
"""Less was not measured."""
_NOISE = 0.02
_DOUBT = 2
"""So many runs in other contexts weigh beside those in a bucket."""

Vector = tuple[float, float, float]


class Prefill(Struct, frozen=True):
    """What one run showed of the time to the first token."""

    cached: int
    uncached: int
    ms: float

    @property
    def features(self) -> Vector:
        """Return what the three rates are multiplied with."""
        return 1.0, float(self.uncached), self.uncached * (self.cached + self.uncached / 2)


class Rates(Struct):
    """The speed of one model, seeded and then learned."""

    seed: Seed
    _prefills: deque[Prefill] = field(default_factory=lambda: deque(maxlen=_KEPT_PREFILLS))
    _steps: list[deque[float]] = field(
        default_factory=lambda: [deque(maxlen=_KEPT_STEPS) for _ in range(_BUCKETS)]
    )
    _fitted: Vector | None = None
    _unfitted: int = 0
    """Runs seen since the fit."""
    _factors: list[float] | None = None
    runs: int = 0
    """Runs learned from, also before the last start."""

    def first_token_s(self, uncached: float, cached: float = 0) -> float:
        """Return the time from the entry into the library to the first token, seconds."""
        floor, each, pair = self._fit()
        return (floor + each * uncached + pair * uncached * (cached + uncached / 2)) / 1000

    def step_s(self, context: float) -> float:
        """Return the time of one token of the answer at so many tokens of context, seconds."""
        return self.seed.step_at(context) * self._factor(context) / 1000

    def answer_s(self, context: float, steps: float) -> float:
        """Return the time of so many steps after the first token of a prompt of `context` tokens, seconds."""
        return steps * self.step_s(context + steps / 2)

    def slot_s(self, prompt: float, cached: float, tokens: float) -> float:
        """Return the slot time of a run: `prompt` tokens, of which `cached` are in the KV, and an answer.

        An answer of n tokens takes n steps after the first token: the last one finds that it is over.
        """
        uncached = max(0.0, prompt - cached)
        return self.first_token_s(uncached, min(cached, prompt)) + self.answer_s(prompt, tokens)

    def learn_first_token(self, cached: int, uncached: int, ms: float) -> None:
        """Take what a run needed to its first token."""
        if ms >= _SHORTEST_MS:
            self._prefills.append(Prefill(cached, uncached, ms))
            self._unfitted += 1

    def learn_steps(self, context: int, steps: int, ms: float) -> None:
        """Take what a run needed for `steps` tokens after its first, the prompt being `context` tokens."""
        if steps > 0 and ms >= _SHORTEST_MS:
            middle = context + steps / 2
            self._steps[_bucket(middle)].append(ms / steps / self.seed.step_at(middle))
            self._factors = None

    def settle(self) -> None:
        """Work out now what has been learned, which the next question would else wait for."""
        self._fit()
        self._factor(0)

    def to_json(self) -> Mapping[str, Any]:
        """Return what is to be kept over a restart."""
        return {
            "runs": self.runs,
            "prefills": [[p.cached, p.uncached, round(p.ms, 2)] for p in self._prefills],
            # As milliseconds at the bucket: a seed may be another one in the next version.
            "steps": [
                [round(ratio * self.seed.step_at(_middle(n)), 3) for ratio in ratios]
                for n, ratios in enumerate(self._steps)
            ],
        }

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Take up what `to_json` wrote; anything else is left alone."""
        try:
            prefills = [Prefill(int(c), int(u), float(ms)) for c, u, ms in kept["prefills"] if ms > 0]
            steps = [[float(ms) for ms in bucket if ms > 0] for bucket in kept["steps"]]
            runs = int(kept["runs"])
        except (KeyError, TypeError, ValueError):
            return
        self.runs = runs
        self._prefills.extend(prefills)
        for n, (ratios, bucket) in enumerate(zip(self._steps, steps, strict=False)):
            ratios.extend(ms / self.seed.step_at(_middle(n)) for ms in bucket)
        self._factors = None
        self._unfitted = _KEPT_PREFILLS

    def _fit(self) -> Vector:
        # The more is known, the less one run changes: a fit of 48 runs takes a third of a millisecond.
        if self._fitted is None or self._unfitted > len(self._prefills) // 6:
            seed = (self.seed.floor_ms, self.seed.prefill_ms, self.seed.attention_ms)
            self._fitted, self._unfitted = _fit(seed, self._prefills), 0
        return self._fitted

    def _factor(self, context: float) -> float:
        """Return how much slower than the seed a step is, by the bucket of `context` or the nearest one."""
        if self._factors is None:
            seen = [n for n in range(_BUCKETS) if self._steps[n]]
            near = [min(seen, key=lambda n: abs(n - wanted), default=None) for wanted in range(_BUCKETS)]
            overall = median(ratio for ratios in self._steps for ratio in ratios) if seen else 1.0
            # A bucket that was seen once may have been seen at a bad moment.
            doubt = [overall] * _DOUBT
            self._factors = [1.0 if n is None else median([*self._steps[n], *doubt]) for n in near]
        return self._factors[_bucket(context)]


def _bucket(context: float) -> int:
    return min(_BUCKETS - 1, int(context // _BUCKET_TOKENS).bit_length())


def _middle(bucket: int) -> float:
    return _BUCKET_TOKENS * (0.5 if bucket == 0 else 0.75 * 2**bucket)


def _fit(seed: Vector, seen: Sequence[Prefill] | deque[Prefill]) -> Vector:
    """Return the rates that explain what was seen; the residuals count in proportion to each time."""
    if not seen:
        return seed
    # First how fast the board is as a whole, then what each part of the time is.
    speed = median(one.ms / _dot(one.features, seed) for one in seen)
    start = (seed[0] * speed, seed[1] * speed, seed[2] * speed)
    rows: list[Vector] = []
    for one in seen:
        a, b, c = one.features
        rows.append((a * start[0] / one.ms, b * start[1] / one.ms, c * start[2] / one.ms))
    weights = [1.0] * len(rows)
    parts: Vector = (1.0, 1.0, 1.0)
    for _ in range(_ROUNDS):
        parts = _solve(rows, weights)
        misses = [abs(_dot(row, parts) - 1) for row in rows]
        near = max(_NOISE, 2.2 * median(misses))
        weights = [1.0 if miss <= near else (near / miss) ** 2 for miss in misses]
    return start[0] * parts[0], start[1] * parts[1], start[2] * parts[2]


def _solve(rows: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """Return the parts, each at least _LEAST, with the least weighted squares of `row · parts - 1`."""
    matrix = [[_TRUST if i == j else 0.0 for j in range(3)] for i in range(3)]
    right = [_TRUST] * 3
    for row, weight in zip(rows, weights, strict=True):
        for i in range(3):
            right[i] += weight * row[i]
            for j in range(3):
                matrix[i][j] += weight * row[i] * row[j]
    parts: dict[int, float] = {}
    while True:
        free = [i for i in range(3) if i not in parts]
        found = _eliminate(
            [[matrix[i][j] for j in free] for i in free],
            [right[i] - sum(matrix[i][j] * part for j, part in parts.items()) for i in free],
        )
        low = {i: _LEAST for i, part in zip(free, found, strict=True) if part < _LEAST}
        if not low:
            parts.update(zip(free, found, strict=True))
            return parts[0], parts[1], parts[2]
        parts.update(low)


def _eliminate(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a positive definite system of at most three equations, each with the seed's weight in it."""
    n = len(right)
    for i in range(n):
        # Times that are a billion times too long round that weight away.
        matrix[i][i] = max(matrix[i][i], _TRUST)
        for k in range(i + 1, n):
            share = matrix[k][i] / matrix[i][i]
            right[k] -= share * right[i]
            for j in range(i, n):
                matrix[k][j] -= share * matrix[i][j]
    found = [0.0] * n
    for i in reversed(range(n)):
        rest = sum(matrix[i][j] * found[j] for j in range(i + 1, n))
        found[i] = (right[i] - rest) / matrix[i][i]
    return found


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
