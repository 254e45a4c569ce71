"""Cut a long prompt into growing beginnings, so that the slot can be interrupted between them.

Pure. The runtime computes a prefill in one piece and aborts behind it; several runs on growing prefixes
compute the same, each on what the one before left in the KV cache.
"""

from collections.abc import Sequence

_SLACK = 0.25
"""A cut may come so much of a chunk earlier, where a message or a word begins."""


def cuts_of(prompt: str, start: int, chunk: int, borders: Sequence[str] = ()) -> tuple[int, ...]:
    """Return where to cut, in characters, rising; empty when the rest is no longer than a chunk and a half.

    Args:
        prompt: The whole prompt.
        start: Characters that are cached already.
        chunk: Characters of a chunk; 0 never cuts.
        borders: Strings that begin a message: tokens never join over them.
    """
    cuts: list[int] = []
    while chunk > 0 and len(prompt) - start > 1.5 * chunk:
        start = _near(prompt, start + chunk, int(chunk * _SLACK), borders)
        cuts.append(start)
    return tuple(cuts)


def _near(prompt: str, wanted: int, slack: int, borders: Sequence[str]) -> int:
    """Return the best place to cut in the `slack` characters up to `wanted`."""
    first = wanted - slack
    message = max((prompt.rfind(border, first, wanted) for border in borders if border), default=-1)
    if message > 0:
        return message
    # In front of white space: it begins the next word's token in most vocabularies.
    word = max(prompt.rfind("\n", first, wanted), prompt.rfind(" ", first, wanted))
    return word if word > first else wanted
