"""Find stop strings and stray markers in a text that arrives in pieces, without showing a part of one.

Pure. The search is an Aho-Corasick automaton: each character costs one step, however many strings there are
and however long they are, and the depth of its state is exactly the number of characters to hold back.

Rule 1: the result never depends on where the text was cut into pieces.
Rule 2: the string that is complete first wins; of several complete at the same character a stop wins over
a marker, then the longest.
"""

import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple


class _Automaton(NamedTuple):
    """Tables indexed by state; state 0 is "nothing begun"."""

    step: tuple[dict[str, int], ...]
    fall_back: tuple[int, ...]
    """The state of the longest shorter suffix that also begins some string."""
    depth: tuple[int, ...]
    """Characters at the end of the text that may still become a string."""
    stop: tuple[int, ...]
    """Length of the longest stop string that ends here, else 0."""
    drop: tuple[int, ...]
    """Length of the longest marker that ends here, else 0."""
    may_begin: re.Pattern[str]
    """Finds a character with which some string begins."""


class StopFilter:
    """Holds back what may become a stop string, ends at one, and drops markers.

    Args:
        stops: The answer ends before the first of these; empty strings are ignored.
        drop: Special-token strings that are removed while the answer goes on.
    """

    def __init__(self, stops: Sequence[str], *, drop: Sequence[str] = ()) -> None:
        self._automaton = _build(tuple(stops), tuple(drop))
        self.may_begin = self._automaton.may_begin.search
        """Finds a character with which some string begins; in a text without one, none does."""
        self._state = 0
        self._held = ""
        self.stopped: str | None = None
        """The stop string that was found; nothing comes out after it."""

    def feed(self, text: str) -> str:
        """Return the text that may be shown now; no character of a stop string or marker is ever in it."""
        if not self._state and self.stopped is None and self.may_begin(text) is None:
            return text  # nearly every token takes this way
        if self.stopped is not None:
            return ""
        return self._search(text)

    @property
    def quiet(self) -> bool:
        """Return whether nothing is held back and the answer goes on."""
        return not self._state and self.stopped is None

    def flush(self) -> str:
        """Return what was held back: the text is over, so it did not become a stop string."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _search(self, text: str) -> str:
        step, fall_back, depth, stop, drop, _ = self._automaton
        pending = self._held + text
        shown: list[str] = []
        done = 0
        state = self._state
        for end, character in enumerate(text, len(self._held) + 1):
            while state and character not in step[state]:
                state = fall_back[state]
            state = step[state].get(character, 0)
            if stop[state]:
                start = end - max(stop[state], drop[state])
                self.stopped = pending[end - stop[state] : end]
                self._held, self._state = "", 0
                return "".join(shown) + pending[done:start]
            if drop[state]:
                shown.append(pending[done : end - drop[state]])
                done, state = end, 0
        keep_from = len(pending) - depth[state]
        self._held, self._state = pending[keep_from:], state
        return "".join(shown) + pending[done:keep_from]


@lru_cache(maxsize=64)  # one configuration serves many runs; a request's own stop strings come and go
def _build(stops: tuple[str, ...], drop: tuple[str, ...]) -> _Automaton:
    step: list[dict[str, int]] = [{}]
    depth, stop_length, drop_length = [0], [0], [0]
    for strings, length in ((stops, stop_length), (drop, drop_length)):
        for string in filter(None, strings):
            state = 0
            for character in string:
                if character not in step[state]:
                    step[state][character] = len(step)
                    step.append({})
                    depth.append(depth[state] + 1)
                    stop_length.append(0)
                    drop_length.append(0)
                state = step[state][character]
            length[state] = len(string)
    fall_back = _link(step, stop_length, drop_length)
    first = "".join(map(re.escape, step[0]))
    may_begin = re.compile(f"[{first}]" if first else r"(?!)")
    return _Automaton(
        tuple(step), tuple(fall_back), tuple(depth), tuple(stop_length), tuple(drop_length), may_begin
    )


def _link(step: list[dict[str, int]], stop_length: list[int], drop_length: list[int]) -> list[int]:
    """Return the fall-back state of each state, and let each state know the strings that end within it."""
    fall_back = [0] * len(step)
    waiting = deque(step[0].values())
    while waiting:
        state = waiting.popleft()
        for character, child in step[state].items():
            shorter = fall_back[state]
            while shorter and character not in step[shorter]:
                shorter = fall_back[shorter]
            fall_back[child] = step[shorter].get(character, 0)
            # Breadth first: the shorter state is complete already. Its own string is the longer one.
            stop_length[child] = stop_length[child] or stop_length[fall_back[child]]
            drop_length[child] = drop_length[child] or drop_length[fall_back[child]]
            waiting.append(child)
    return fall_back
