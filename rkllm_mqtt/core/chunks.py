"""Cut a long prompt into growing beginnings, so that the slot can be interrupted between them.

Pure. The runtime computes a prefill in one piece and aborts behind it; several runs on growing prefixes
compute the same, each on what the one before left in the KV cache.
"""

from collections.abc import Sequence

_SLACK = 0.25
"""A cut may come so much of a chunk earlier, where a message or a word begins."""


def next_cut(prompt: str, start: int, chunk: int, borders: Sequence[str] = ()) -> int | None:
    """Return where to cut next, in characters; None when the rest is no longer than a chunk.

    Args:
        prompt: The whole prompt.
        start: Characters that are computed already.
        chunk: Characters of a chunk; 0 never cuts.
        borders: Strings that begin a message: tokens never join over them.
    """
    rest, slack = len(prompt) - start, int(chunk * _SLACK)
    if chunk <= 0 or rest <= chunk:
        return None
    # The last two are about equal: each piece costs a floor, which a few tokens are not worth.
    wanted = start + min(chunk, (rest + slack) // 2)
    first = wanted - slack
    message = max((prompt.rfind(border, first, wanted) for border in borders if border), default=-1)
    if message > start:
        return message
    # In front of white space: it begins the next word's token in most vocabularies.
    word = max(prompt.rfind("\n", first, wanted), prompt.rfind(" ", first, wanted))
    return word if word > max(first, start) else wanted
