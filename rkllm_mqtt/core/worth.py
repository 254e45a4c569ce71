"""Decide when a prompt-cache file is worth loading, and when it is worth writing.

Pure. Learned rates go in, seconds come out. A restore must be clearly cheaper than computing; a save must be
expected to bring more than it costs.
"""

from collections.abc import Callable

from msgspec import Struct

from rkllm_mqtt.core.rates import Rates

_CLEARLY = 0.1
"""A restore gains at least so much of what computing would take."""
_LEAST_S = 0.01
_IDLE = 0.2
"""What a save in an idle slot may cost for what it brings: somebody waits for it only by bad luck."""
_IN_FRONT = 2.0
"""A save in front of a job that waits is expected to bring so many times its cost."""
_MOST_IN_FRONT_S = 0.5
"""Such a save is no longer than this."""

Seconds = Callable[[int], float]
"""The seconds that so many tokens take."""


class Plan(Struct, frozen=True):
    """What a save costs, and what it is expected to bring, seconds."""

    cost_s: float
    value_s: float

    @property
    def gain_s(self) -> float:
        """Return what is left."""
        return self.value_s - self.cost_s

    def pays(self, *, in_front: bool) -> bool:
        """Return whether to do it: in an idle slot, or in front of a job that waits."""
        if in_front:
            return self.cost_s <= _MOST_IN_FRONT_S and self.value_s > _IN_FRONT * self.cost_s
        return self.value_s > _IDLE * self.cost_s


def restore_gain_s(rates: Rates, prompt: int, cached: int, held: int, load_s: float) -> float:
    """Return what a restore saves, seconds; 0 when it is not clearly cheaper than computing.

    Args:
        rates: Of the model.
        prompt: Tokens of the prompt.
        cached: Of them, those in the KV cache without a restore.
        held: Of them, those that the file holds.
        load_s: What its load takes.
    """
    computing_s = rates.first_token_s(max(0, prompt - cached), min(cached, prompt))
    restoring_s = load_s + rates.first_token_s(max(0, prompt - held), min(held, prompt))
    gain_s = computing_s - restoring_s
    return gain_s if gain_s > max(_LEAST_S, _CLEARLY * computing_s) else 0.0


def plan_of(
    rates: Rates, tokens: int, covered: int, *, chance: float, left: int, load_s: Seconds, save_s: Seconds
) -> Plan:
    """Return what a file of a beginning that is in the KV cache now costs and is expected to bring.

    Args:
        rates: Of the model.
        tokens: Of the beginning.
        covered: Of them, those that a file holds already.
        chance: That the beginning comes again when something else is in the cache, 0 to 1.
        left: Tokens of the beginning that are not in the cache.
        load_s: Of a file of so many tokens.
        save_s: Of a file of so many tokens.
    """
    without_s = rates.first_token_s(tokens)
    if covered:
        without_s = min(without_s, load_s(covered) + rates.first_token_s(max(0, tokens - covered), covered))
    with_s = load_s(tokens) + rates.first_token_s(0, tokens)
    cost_s = rates.first_token_s(left, max(0, tokens - left)) + save_s(tokens)
    return Plan(cost_s, chance * max(0.0, without_s - with_s))
