"""Separate a model's thoughts from its answer while both arrive in pieces.

Pure. Thinking models put their thoughts between `<think>` and `</think>` at the very start of the answer.

Rule 1: only a block at the very start counts, white space aside; a later `<think>` is text.
Rule 2: neither marker nor a part of one is ever shown, nor the white space around the block.
Rule 3: the joined result never depends on where the text was cut into pieces.
"""

from enum import Enum, auto
from typing import Literal

OPEN = "<think>"
CLOSE = "</think>"

Piece = tuple[Literal["text", "thinking"], str]
"""What kind it is, and a text that is never empty."""


class _Place(Enum):
    START = auto()  # the answer may still begin with a marker
    THOUGHTS_START = auto()  # only white space of the thoughts so far
    THOUGHTS = auto()
    GAP = auto()  # after the closing marker: white space before the answer
    TEXT = auto()


class ThinkingSplitter:
    """Splits the answer of one run.

    Args:
        opens_thinking: The prompt ended inside an open `<think>`, so the answer begins with thoughts; a model
            that opens them once more is forgiven.
    """

    def __init__(self, opens_thinking: bool) -> None:
        self._opens_thinking = opens_thinking
        self._place = _Place.START
        self._held = ""

    @property
    def thinking(self) -> bool:
        """Whether the thoughts have begun and are not closed."""
        return self._place in (_Place.THOUGHTS_START, _Place.THOUGHTS)

    @property
    def unanswered(self) -> bool:
        """Whether the thoughts were closed and nothing but white space came after.

        Runtime 1.3.0 ends some runs right at `</think>`; the caller goes on behind them.
        """
        return self._place is _Place.GAP

    def passes(self, text: str) -> bool:
        """Return whether a text is answer from its first character to its last; then it counts as taken."""
        if self._place is _Place.START and not self._opens_thinking and not self._held:
            if text.lstrip()[:1] in ("", OPEN[0]):
                return False
            self._place = _Place.TEXT  # nearly every answer begins without thoughts
        return self._place is _Place.TEXT

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that may be shown now, in order."""
        if self.passes(text):
            return [("text", text)] if text else []
        self._held += text
        pieces: list[Piece] = []
        while self._advance(pieces):
            pass
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back: the answer is over. Thoughts that were never closed stay thoughts."""
        held, self._held = self._held, ""
        if self._place is _Place.START and not self._opens_thinking:
            self._place = _Place.TEXT
            return [("text", held)] if held else []
        if self._place is _Place.GAP:
            return []
        thoughts = held.rstrip() if self._place is _Place.THOUGHTS else held.strip()
        return [("thinking", thoughts)] if thoughts else []

    def _advance(self, pieces: list[Piece]) -> bool:
        """Take one step through the held text; return False when more of it is needed."""
        match self._place:
            case _Place.START:
                return self._leave_start()
            case _Place.THOUGHTS_START:
                self._held = self._held.lstrip()
                self._place = _Place.THOUGHTS if self._held else self._place
                return bool(self._held)
            case _Place.THOUGHTS:
                return self._take_thoughts(pieces)
            case _Place.GAP:
                self._held = self._held.lstrip()
                self._place = _Place.TEXT if self._held else self._place
                return bool(self._held)
            case _Place.TEXT:
                pieces.append(("text", self._held))
                self._held = ""
                return False

    def _leave_start(self) -> bool:
        begun = self._held.lstrip()
        if begun.startswith(OPEN):
            self._held = begun[len(OPEN) :]
            self._place = _Place.THOUGHTS_START
            return True
        if OPEN.startswith(begun):  # also when there is nothing but white space yet
            return False
        self._place = _Place.THOUGHTS_START if self._opens_thinking else _Place.TEXT
        return True

    def _take_thoughts(self, pieces: list[Piece]) -> bool:
        end = self._held.find(CLOSE)
        if end >= 0:
            thoughts, self._held = self._held[:end].rstrip(), self._held[end + len(CLOSE) :]
            self._place = _Place.GAP
        else:
            keep = _overlap(self._held, CLOSE)
            # White space before a marker belongs to the marker, so it waits together with it.
            thoughts = self._held[: len(self._held) - keep].rstrip()
            self._held = self._held[len(thoughts) :]
        if thoughts:
            pieces.append(("thinking", thoughts))
        return end >= 0


def _overlap(text: str, marker: str) -> int:
    """Return the length of the longest end of `text` that is a proper beginning of `marker`."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
