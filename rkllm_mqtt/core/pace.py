"""Learn how fast a model is, from its real runs; predict prefills, count the tokens of a prompt.

Pure. Estimates only: they set the clocks that watch a run and fill `eta_s`, and they never refuse work.
"""

from collections import deque

from msgspec import Struct, field

from rkllm_mqtt.core.rates import Rates
from rkllm_mqtt.core.seeds import seed_of
from rkllm_mqtt.core.tokens import TokenEstimator

# Slowest prefill measured on RK3588 is about 16 ms a token (4,000 tokens in 65 s); before the first run
# the watch must not be faster than that.
_UNKNOWN_PREFILL_MS = 16.0
_UNKNOWN_CHARS_PER_TOKEN = 3.0
_WEIGHT = 0.2
_KEPT_RUNS = 100


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _WEIGHT * (new - old)


class Pace(Struct):
    """What the runs of one model have taught so far."""

    prefill_ms_per_token: float | None = None
    """Of uncached tokens, the slowest seen lately: it feeds a watch, not a promise."""
    chars_per_token: float | None = None
    run_s: float | None = None
    """Mean duration of a run, seconds."""
    rates: Rates = field(default_factory=lambda: Rates(seed_of()))
    """Slot time by tokens: orders the work."""
    tokenizer: TokenEstimator = field(default_factory=TokenEstimator)
    """What its tokenizer makes of texts."""
    ttft_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_RUNS))
    tokens_per_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_RUNS))

    def tokens_of(self, chars: int) -> int:
        """Return the estimated tokens of a text of so many characters."""
        return round(chars / (self.chars_per_token or _UNKNOWN_CHARS_PER_TOKEN))

    def prefill_s(self, chars: int) -> float:
        """Return the predicted prefill of a prompt when nothing of it is cached, seconds."""
        return self.tokens_of(chars) * (self.prefill_ms_per_token or _UNKNOWN_PREFILL_MS) / 1000

    def first_token_limit_s(self, chars: int, margin_s: float) -> float:
        """Return how long a run may be silent before its first token: twice the prediction and a margin."""
        return 2 * self.prefill_s(chars) + margin_s

    def learn_prefill(self, chars: int, computed_tokens: int, prefill_ms: float, *, cold: bool) -> None:
        """Take the figures of a finished prefill.

        Args:
            chars: Length of the prompt.
            computed_tokens: Prompt tokens that the runtime really computed.
            prefill_ms: From the entry into the run to the first token.
            cold: Nothing of the prompt was cached, so the tokens are all of it.
        """
        if computed_tokens >= 16:  # fewer measure the floor of the first token, not the rate
            rate = prefill_ms / computed_tokens
            old = self.prefill_ms_per_token
            self.prefill_ms_per_token = rate if old is None or rate > old else _blend(old, rate)
        if cold and computed_tokens >= 8:
            self.chars_per_token = _blend(self.chars_per_token, chars / computed_tokens)

    def learn_run(self, run_s: float, ttft_ms: float | None, tokens_per_s: float | None) -> None:
        """Take the figures of a finished run."""
        self.run_s = _blend(self.run_s, run_s)
        if ttft_ms is not None:
            self.ttft_ms.append(ttft_ms)
        if tokens_per_s is not None:
            self.tokens_per_s.append(tokens_per_s)


def common_prefix(a: str, b: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    if a == b:
        return len(a)
    low, high = 0, min(len(a), len(b))
    # Slices compare in C; a character loop over a 200,000-character prompt would take milliseconds.
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def percentile(values: "deque[float] | list[float]", share: float) -> float | None:
    """Return the value below which `share` (0 to 1) of the values lie; None when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
