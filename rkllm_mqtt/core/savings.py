"""What the KV cache and its files have saved, in tokens and in slot time.

Pure. Told as what computing everything would have taken, at the learned speed, less what it took.
"""

from msgspec import Struct

from rkllm_mqtt.core.rates import Rates

_LEAST_TOKENS = 16
"""Fewer are the header of a template, which all prompts have in common."""


class Savings(Struct):
    """Totals since the start of the daemon."""

    runs: int = 0
    hits: int = 0
    """Runs of which a part was not computed again."""
    tokens: int = 0
    computed: int = 0
    seconds: float = 0.0

    def count(self, rates: Rates, cached: int, computed: int | None, restore_s: float = 0.0) -> None:
        """Take a run of which `cached` tokens were not computed; `computed` None: the runtime did not say."""
        if computed is None:
            return
        self.runs += 1
        self.computed += computed
        if cached < _LEAST_TOKENS:
            return
        self.hits += 1
        self.tokens += cached
        whole_s = rates.first_token_s(cached + computed)
        self.seconds += max(0.0, whole_s - rates.first_token_s(computed, cached) - restore_s)

    @property
    def hit_percent(self) -> float | None:
        """Return how many of the prompts' tokens were not computed, percent; None before the first prompt."""
        total = self.tokens + self.computed
        return round(100 * self.tokens / total, 1) if total else None
