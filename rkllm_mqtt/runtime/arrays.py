"""What is read out of the arrays of the library: log probabilities of tokens, one vector of a text.

numpy is imported where the first array comes: plain chat never needs it.
"""

from collections.abc import Sequence
from typing import Any

_DIGITS = 7
"""As many as a float32 has."""


class Unreadable(Exception):
    """The library's numbers are none, or not those of the model that was asked."""


def log_probabilities(row: Any, ids: Sequence[int]) -> list[float]:
    """Return the natural log probabilities of tokens, by the logits of one position.

    Args:
        row: float32 numpy, one value for each token of the vocabulary.
        ids: Of the tokens.

    Raises:
        Unreadable: The row holds no finite value, or no such token.
    """
    import numpy

    wide = row.astype(numpy.float64)
    most = wide.max()
    if not numpy.isfinite(most) or numpy.isnan(wide).any():
        raise Unreadable("the logits are no numbers")
    if max(ids) >= len(wide) or min(ids) < 0:
        raise Unreadable(f"the logits are of {len(wide)} tokens, and {max(ids)} is none of them")
    total = most + numpy.log(numpy.exp(wide - most).sum())
    return [float(max(wide[token] - total, -1e9)) for token in ids]


def pooled(rows: Any, pooling: str) -> list[float]:
    """Return the vector of a text, of length 1.

    Args:
        rows: float32 numpy, the hidden states of each token.
        pooling: `mean` of all tokens, the `last` one's, or the first one's (`cls`).

    Raises:
        Unreadable: The rows hold no finite values.
    """
    import numpy

    wide = rows.astype(numpy.float64)
    vector = wide.mean(axis=0) if pooling == "mean" else wide[0 if pooling == "cls" else -1]
    length = numpy.sqrt((vector * vector).sum())
    if not numpy.isfinite(length):
        raise Unreadable("the hidden states are no numbers")
    return [float(f"{value:.{_DIGITS}g}") for value in vector / (length or 1.0)]
