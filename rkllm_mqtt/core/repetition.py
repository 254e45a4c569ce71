"""Notice that a model has fallen into a loop and repeats itself for ever.

Pure. Small models with greedy sampling do this: the same few tokens, or the same paragraph, until the token
limit. A loop is an exact repetition; what counts up or varies is not one.
"""

from collections.abc import Hashable

MAX_SPAN = 64
"""Longest repeated span that is looked for, in tokens: about a paragraph of three lines."""

MIN_REPEATS = 8
"""A span counts only when it stood this often in a row; tables and code repeat a long block a few times."""

MIN_TOKENS = 200
"""And only when the repetition covers this many tokens: it spares laughter, dashed lines, rows of zeros and
twenty equal lines of ten tokens. At 15 tokens/s a loop of a few words is cut after about 14 s."""

_LOOK_EVERY = 8  # tokens; a look costs about 1 µs, and a loop may well be noticed 7 tokens later


class RepetitionDetector:
    """Watches the tokens of one run.

    Args:
        max_span: Longest repeated span in tokens, 1 or more.
        min_repeats: How often the span must stand in a row, 3 or more.
        min_tokens: How many tokens the repetition must cover.
    """

    def __init__(
        self, *, max_span: int = MAX_SPAN, min_repeats: int = MIN_REPEATS, min_tokens: int = MIN_TOKENS
    ) -> None:
        if max_span < 1 or min_repeats < 3:
            raise ValueError("max_span must be at least 1 and min_repeats at least 3")
        self._max_span = max_span
        self._min_repeats = min_repeats
        self._min_tokens = min_tokens
        self._window = max(min_tokens, min_repeats * max_span) + 1
        self._tail: list[Hashable] = []
        self._until_look = _LOOK_EVERY
        self.span = 0
        """Length of the repeated span in tokens once a loop was found, else 0."""

    def feed(self, token: Hashable) -> bool:
        """Add one token, by id or by text; return whether the end of the run is a loop. Once true, always."""
        if self.span:
            return True
        self._tail.append(token)
        self._until_look -= 1
        if self._until_look:
            return False
        self._until_look = _LOOK_EVERY
        if len(self._tail) > 2 * self._window:
            del self._tail[: -self._window]
        self.span = self._find_span()
        return self.span > 0

    def _find_span(self) -> int:
        """Return the shortest span that the tail repeats often enough, else 0."""
        tail = self._tail
        if len(tail) < self._min_tokens:
            return 0
        last = tail[-1]
        earlier = tail[-2 : -2 - self._max_span : -1]  # index 0 is one token before the last
        span = 0
        for _ in range(earlier.count(last)):  # in normal text: none, or two or three
            span = earlier.index(last, span) + 1
            covered = max(self._min_tokens, self._min_repeats * span)
            if len(tail) < covered or tail[-2] != tail[-2 - span]:
                continue  # the second last token rules out nearly every candidate without a copy
            if tail[-covered + span :] == tail[-covered:-span]:
                return span
        return 0
