"""Read what a model writes: end it at a stop string, drop marks, tell thoughts and tool calls from text.

Rule 1: the result never depends on where the text was cut into pieces, nor on how many runs it took.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rkllm_mqtt.content.calls import CallParser, CallPiece
from rkllm_mqtt.content.offer import Offer
from rkllm_mqtt.core.stops import StopFilter
from rkllm_mqtt.core.thinking import ThinkingSplitter

_THOUGHTS_CLOSED = "\n</think>\n\n"

WirePiece = str | list[str] | dict[str, str]
"""Text, thoughts in a list of one, or a tool call with name and arguments."""


class AnswerReader:
    """Reads the answer of one job.

    Args:
        order: The `run` frame.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._stops = StopFilter(order["stops"], drop=order["specials"])
        self._splitter = ThinkingSplitter(order["opens_thinking"])
        self._text_stops = StopFilter(order["text_stops"])
        self._calls = None if order["calls"] is None else _call_parser(order["calls"])
        self._quiet = True
        """Nothing is held back and the answer goes on: a text in which no mark begins passes."""
        self.plain = False
        """The last text was shown as it was: neither thoughts nor an end."""
        self._pieces: list[WirePiece] = []
        self._written: list[str] = []
        self._shown: list[str] = []
        self._shown_whole = True
        """Neither thoughts nor calls were taken out of the text."""
        self._again = ""
        self._thinking_tokens: int | None = order["thinking_tokens"]
        self._thoughts = 0
        if order["carried"]:
            self._carry(order["carried"])

    def _carry(self, pieces: Sequence[str]) -> None:
        """Read what earlier runs have made."""
        for piece in pieces:
            self.feed(piece)
        self._pieces = []
        carried = "".join(pieces)
        # It is not in the prompt, so it comes again; but it was read already.
        self._again = carried[len(carried.rstrip()) :]
        self._quiet = self._quiet and not self._again

    def feed(self, text: str) -> bool:
        """Take text as the model makes it; False: all of it was there before."""
        self.plain = (
            self._quiet
            and self._stops.may_begin(text) is None
            and self._text_stops.may_begin(text) is None
            and self._splitter.passes(text)
            and (self._calls is None or self._calls.passes(text))
        )
        if self.plain:  # nearly every token takes this way
            self._written.append(text)
            self._shown.append(text)
            self._pieces.append(text)
            return True
        if self._again:
            text = self._beyond(text)
            if not text:
                return False
        self._written.append(text)
        self._split(self._stops.feed(text))
        self._thoughts += self._splitter.thinking
        self._quiet = self._stops.quiet and self._text_stops.quiet and not self._again
        return True

    @property
    def thinks_too_long(self) -> bool:
        """Return whether the thoughts have used their tokens and are not closed."""
        limit = self._thinking_tokens
        return limit is not None and self._thoughts >= limit and self._splitter.thinking

    @property
    def unanswered(self) -> bool:
        """Return whether thoughts were closed and nothing came after them."""
        return self._splitter.unanswered and not self.stopped

    def close_thoughts(self) -> str:
        """Close the thoughts in the model's place; return the text with which it did not do so itself."""
        self.feed(_THOUGHTS_CLOSED)
        return _THOUGHTS_CLOSED

    @property
    def so_far(self) -> str:
        """Return all that was written, what was carried included."""
        return "".join(self._written)

    def take(self) -> list[WirePiece]:
        """Return the pieces that may be shown since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def has_pieces(self) -> bool:
        """Return whether something may be shown."""
        return bool(self._pieces)

    @property
    def again(self) -> int:
        """Return how many characters will come that were there before."""
        return len(self._again)

    @property
    def stopped(self) -> bool:
        """Return whether what came so far is the whole answer."""
        if self._calls is not None and self._calls.ended:
            return True
        return self._stops.stopped is not None or self._text_stops.stopped is not None

    def end(self, rest: str, *, complete: bool) -> None:
        """The answer is over: show what was held back.

        Args:
            rest: Its last characters.
            complete: It ended by itself; a tool call that is not whole is one all the same.
        """
        if self._stops.stopped is None:
            self._split(self._stops.feed(rest) + self._stops.flush())
        for kind, part in self._splitter.flush():
            self._add(kind, part)
        if self._calls is not None:
            self._add_parsed(self._calls.flush(complete=complete))
        last = self._text_stops.flush()
        if last:
            self._shown.append(last)
            self._pieces.append(last)

    def written(self) -> str | None:
        """Return what the model wrote up to the family's stop; None where just that was shown."""
        written = "".join(self._written)
        if self._stops.stopped is not None:
            written = written[: written.rfind(self._stops.stopped)]
        return None if self._shown_whole and written == "".join(self._shown) else written

    def _split(self, text: str) -> None:
        if text:
            for kind, part in self._splitter.feed(text):
                self._add(kind, part)

    def _beyond(self, text: str) -> str:
        """Return what of a text was not there before."""
        same = 0
        while same < min(len(text), len(self._again)) and text[same] == self._again[same]:
            same += 1
        # Where the model goes on in another way, what was shown stays.
        self._again = self._again[same:] if same == len(text) else ""
        return text[same:]

    def _add(self, kind: str, text: str) -> None:
        if kind == "thinking":
            self._shown_whole = False
            self._pieces.append([text])
        elif self._calls is None:
            self._add_text(text)
        else:
            self._add_parsed(self._calls.feed(text))

    def _add_parsed(self, parts: Sequence[CallPiece]) -> None:
        for part in parts:
            if isinstance(part, str):
                self._add_text(part)
            elif self._text_stops.stopped is None:
                self._shown_whole = False
                self._pieces.append({"name": part.name, "arguments": part.arguments})

    def _add_text(self, text: str) -> None:
        text = self._text_stops.feed(text)
        if text:
            self._shown.append(text)
            self._pieces.append(text)


def _call_parser(order: Mapping[str, Any]) -> CallParser:
    """Return what tells calls from text for the `calls` of a run's frame."""
    return CallParser(Offer(order["tools"]), begun=order["begun"], only_one=order["only_one"])
