"""Tell the tool calls of an answer from its text while both arrive in pieces.

Pure. Text is shown at once; what may still become a call is held back until it is one, or is text.

Rule 1: the joined result never depends on where the answer was cut into pieces.
Rule 2: no mark of a call, nor a part of one, is ever shown, nor the white space in front of it.
Rule 3: only a call of an offered tool is a call; what looked like one otherwise is text without its marks.
Rule 4: an answer that was cut off ends before a call that is not whole: half an argument is a wrong one.
"""

import re
from enum import Enum, auto

from rkllm_mqtt.content.offer import Offer
from rkllm_mqtt.content.reading import ToolCall, read_calls
from rkllm_mqtt.content.syntax import (
    OPENINGS,
    RESULTS,
    BracketSpan,
    Likeness,
    any_mark,
    bare_head,
    cut_mark_at_end,
    fence_head,
    mark_at,
    without_marks,
)

CallPiece = str | ToolCall
"""Text that is never empty, or a call."""

_CANDIDATE = re.compile(r"[<\[{`]")
_CALM = re.compile(r"[^<\[{`]*[^<\[{`\s]")
_BETWEEN_CALLS = re.compile(r"[\s;,\])}]*")
_LONGEST_MARK = 32
_REFUTED_AT_MOST = 32
"""An answer in which so much looked like a call without a mark, and was none, is text."""


class _Place(Enum):
    TEXT = auto()
    MARKED = auto()  # behind a mark that opens a call
    BARE = auto()  # at a bracket that may begin a call
    FENCED = auto()  # at ``` that may fence one


class CallParser:
    """Reads the answer of one run.

    Args:
        offer: The tools that may be called.
        begun: How the prompt has begun the answer; the model goes on from there.
        only_one: The first call ends the answer.
    """

    def __init__(self, offer: Offer, *, begun: str = "", only_one: bool = False) -> None:
        self._offer = offer
        self._only_one = only_one
        self._place = _Place.TEXT
        self._held = ""
        self._cleared = 0
        """Characters of the held text that are text for certain."""
        self._gap = ""
        """White space in front of what may be a call."""
        self._opening = ""
        self._seen = 0
        self._likeness = Likeness.OPEN
        self._inside_at = 0
        self._span = BracketSpan()
        self._line_start = True
        self._shown = False
        self._refuted = 0
        self._after_call = False
        self.calls = 0
        """Calls found so far."""
        self.ended = False
        """The answer is over, whatever the model goes on to write."""
        self.feed(begun)

    def passes(self, text: str) -> bool:
        """Return whether a text is text from its first character to its last; then it counts as taken."""
        calm = not self._held and not self._after_call and self._place is _Place.TEXT and not self.ended
        if not calm or _CALM.fullmatch(text) is None:
            return False
        self._line_start, self._shown = False, True
        return True

    def feed(self, text: str) -> list[CallPiece]:
        """Return what may be shown now, in order."""
        if self.ended:
            return []
        if self.passes(text):
            return [text]
        self._held += text
        pieces: list[CallPiece] = []
        while not self.ended and self._advance(pieces):
            pass
        return pieces

    def flush(self, *, complete: bool) -> list[CallPiece]:
        """Return what was held back.

        Args:
            complete: The model ended the answer itself; else it was cut off.
        """
        pieces: list[CallPiece] = []
        while not self.ended and self._place is not _Place.TEXT:
            self._close(pieces, complete)
            while not self.ended and self._advance(pieces):
                pass
        if self.ended:
            return pieces
        rest, self._held = cut_mark_at_end(self._held, complete=complete), ""
        if rest := rest.rstrip() if self._after_call or self.calls else rest:
            self._show(rest, pieces)
        return pieces

    # places

    def _advance(self, pieces: list[CallPiece]) -> bool:
        """Take one step through the held text; return False when more of it is needed."""
        match self._place:
            case _Place.TEXT:
                return self._scan(pieces)
            case _Place.MARKED:
                return self._take_marked(pieces)
            case _Place.BARE:
                return self._take_bare(pieces)
            case _Place.FENCED:
                return self._take_fenced(pieces)

    def _scan(self, pieces: list[CallPiece]) -> bool:
        """Show text up to where a call may begin."""
        if self._after_call and not self._cleared:
            self._held = self._held[_between(self._held) :]
        held, at = self._held, self._cleared
        while found := _CANDIDATE.search(held, at):
            at = found.start()
            mark = mark_at(held, at)
            if mark == "":
                self._show_until(at, pieces)
                return False
            if mark is not None:
                return self._meet(mark, at, pieces)
            if held[at] != "<" and self._refuted < _REFUTED_AT_MOST and self._begins_line(held, at):
                likeness = self._look(held[at:])
                if likeness is not Likeness.NO:
                    return self._begin(_Place.FENCED if held[at] == "`" else _Place.BARE, at, pieces)
            at += 1
        self._show_until(len(held), pieces)
        return False

    def _look(self, rest: str) -> Likeness:
        return fence_head(rest, self._offer)[0] if rest[0] == "`" else bare_head(rest, self._offer)

    def _meet(self, mark: str, at: int, pieces: list[CallPiece]) -> bool:
        if mark in RESULTS:
            self._show_until(at, pieces)
            self._held, self.ended = "", True
            return False
        if mark in OPENINGS:
            return self._begin(_Place.MARKED, at, pieces, mark)
        self._show_until(at, pieces)  # a mark without its beginning
        gap = len(self._held) - len(self._held.lstrip())
        self._held = self._held[:gap] + self._held[gap + len(mark) :]
        return True

    def _begin(self, place: _Place, at: int, pieces: list[CallPiece], opening: str = "") -> bool:
        """Hold back what may be a call, which stands at a place of the held text."""
        self._show_until(at, pieces)
        gap = len(self._held) - len(self._held.lstrip())
        self._gap, self._held = self._held[:gap], self._held[gap + len(opening) :]
        self._place, self._opening = place, opening
        self._seen, self._inside_at, self._likeness, self._span = 0, 0, Likeness.OPEN, BracketSpan()
        return True

    def _take_marked(self, pieces: list[CallPiece]) -> bool:
        start = max(0, self._seen - _LONGEST_MARK)
        self._seen = len(self._held)
        close = OPENINGS[self._opening]
        for found in any_mark.finditer(self._held, start):
            ends = found[0] == close or found[0] in RESULTS or found[0] in OPENINGS
            if not ends or (found[0] == "<function=" and self._opening == "<tool_call>"):
                continue
            body, rest = self._held[: found.start()], self._held[found.start() :]
            self._held = rest.removeprefix(close) if close else rest
            self._settle(body, pieces, mend=True)
            return True
        return False

    def _take_bare(self, pieces: list[CallPiece]) -> bool:
        if self._likeness is Likeness.OPEN:
            self._likeness = bare_head(self._held, self._offer)
        if self._likeness is Likeness.NO:
            return self._refute()
        end = self._span.end(self._held)
        if end is None:
            return False
        calls = read_calls(self._held[:end], self._offer, bare=True)
        if not calls:
            return self._refute()
        self._held = self._held[end:]
        self._found(calls, pieces)
        return True

    def _take_fenced(self, pieces: list[CallPiece]) -> bool:
        if self._likeness is Likeness.OPEN:
            self._likeness, self._inside_at = fence_head(self._held, self._offer)
        if self._likeness is Likeness.NO:
            return self._refute()
        if self._likeness is Likeness.OPEN:
            return False
        end = self._held.find("```", max(self._inside_at, self._seen - 2))
        self._seen = len(self._held)
        if end < 0:
            return False
        calls = read_calls(self._held[self._inside_at : end], self._offer, bare=_is_data(self._held))
        if not calls:
            return self._refute()
        self._held = self._held[end + 3 :]
        self._found(calls, pieces)
        return True

    def _close(self, pieces: list[CallPiece], complete: bool) -> None:
        """The answer is over within what may be a call."""
        body, self._held = cut_mark_at_end(self._held, complete=complete), ""
        if self._place is _Place.MARKED:
            self._settle(body, pieces, mend=complete, keep=complete)
            return
        inside = body[self._inside_at :] if self._place is _Place.FENCED else body
        bare = self._place is _Place.BARE or _is_data(body)
        calls = read_calls(inside, self._offer, bare=bare, mend=complete)
        if calls:
            self._found(calls, pieces)
        elif complete:
            self._held = body
            self._refute()
        else:
            self._place = _Place.TEXT

    # what comes of it

    def _settle(self, body: str, pieces: list[CallPiece], *, mend: bool, keep: bool = True) -> None:
        """End a marked call: it is one, or text where that is to be kept."""
        marked = self._opening + body if self._opening == "<function=" else body
        calls = read_calls(marked, self._offer, mend=mend)
        self._place = _Place.TEXT
        if calls:
            self._found(calls, pieces)
        elif keep and (text := without_marks(body).strip()):
            self._show(self._gap + text, pieces)

    def _found(self, calls: list[ToolCall], pieces: list[CallPiece]) -> None:
        taken = calls[:1] if self._only_one else calls
        pieces.extend(taken)
        self.calls += len(taken)
        self._place, self._after_call, self._line_start = _Place.TEXT, True, True
        self._gap, self._cleared = "", 0
        if self._only_one:
            self._held, self.ended = "", True

    def _refute(self) -> bool:
        """What may have been a call is text; within it another may begin."""
        self._held = self._gap + self._held
        self._cleared = len(self._gap) + 1
        self._refuted += self._likeness is Likeness.YES
        self._place, self._gap = _Place.TEXT, ""
        return True

    def _show_until(self, at: int, pieces: list[CallPiece]) -> None:
        """Show the held text before a place, but not the white space at its end."""
        text = self._held[:at].rstrip()
        if text:
            self._held = self._held[len(text) :]
            self._cleared = max(0, self._cleared - len(text))
            self._show(text, pieces)

    def _show(self, text: str, pieces: list[CallPiece]) -> None:
        if self._after_call:
            self._after_call = False
            text = ("\n" if self._shown else "") + text.lstrip()
        tail = text.rstrip(" \t")
        self._line_start = tail.endswith("\n") if tail else self._line_start
        self._shown = True
        pieces.append(text)

    def _begins_line(self, held: str, at: int) -> bool:
        before = held[:at].rstrip(" \t")
        return before.endswith("\n") if before else self._line_start


def _between(text: str) -> int:
    """Return the length of what separates calls from each other, and from what is wrapped around them."""
    found = _BETWEEN_CALLS.match(text)
    return found.end() if found else 0


def _is_data(fence: str) -> bool:
    """Return whether a fence does not say by its language that it holds a call."""
    return not fence.lower().lstrip("` \t").startswith("tool_")
