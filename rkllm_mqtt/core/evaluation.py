"""Make probabilities of options out of the log probabilities of their tokens. Pure."""

import math
from collections.abc import Sequence

from msgspec import Struct

LEAST_LOG = -1000.0
"""Log probabilities end here: minus infinity is no JSON."""


class Weighed(Struct, frozen=True):
    """What a model makes of one option."""

    log_probability: float
    """Natural; that its answer is this option and not a longer one that begins so."""
    probability: float
    """Among the options: they sum up to 1."""


def weigh(tokens: Sequence[Sequence[int]], logs: Sequence[float]) -> list[Weighed]:
    """Return the weights of options.

    Args:
        tokens: Of each option, all different.
        logs: The natural log probability that the answer begins with these tokens.
    """
    own = [_without_longer(place, tokens, logs) for place in range(len(tokens))]
    most = max(own)
    total = sum(math.exp(one - most) for one in own)
    return [Weighed(max(one, LEAST_LOG), math.exp(one - most) / total) for one in own]


def _without_longer(place: int, tokens: Sequence[Sequence[int]], logs: Sequence[float]) -> float:
    """Return the log probability of an option less that of the options which go on behind it."""
    mine = tuple(tokens[place])
    longer = [other for other, ids in enumerate(tokens) if len(ids) > len(mine) and _begins(ids, mine)]
    # Of two that go on, one may go on behind the other: it is a part of that one's share already.
    direct = [
        other
        for other in longer
        if not any(between != other and _begins(tokens[other], tokens[between]) for between in longer)
    ]
    taken = sum(math.exp(min(0.0, logs[other] - logs[place])) for other in direct)
    return logs[place] + math.log(max(1.0 - taken, math.exp(LEAST_LOG / 2)))


def _begins(whole: Sequence[int], beginning: Sequence[int]) -> bool:
    return tuple(whole[: len(beginning)]) == tuple(beginning)
