"""What one run, or one column of a batch, has written: bytes of tokens in, `tokens` frames out.

Rule 1: whoever calls holds a lock where two threads may; nothing here waits or knows the library.
Rule 2: it says why an answer is over (`reason`), and never ends a run itself.
"""

import time
from collections.abc import Callable

from rkllm_mqtt.core.repetition import RepetitionDetector
from rkllm_mqtt.core.utf8 import Utf8Stream
from rkllm_mqtt.runtime.frames import Frame
from rkllm_mqtt.runtime.reader import AnswerReader

# A loop this long is no list or table any more; shorter answers end by their own limit.
_LOOP_TOKENS = 512


class Transcript:
    """The answer of one order.

    Args:
        order: The `run` frame.
        send: Takes its frames.
        limited: The library counts the tokens of a run that continues nothing, so it need not be done here.
    """

    def __init__(self, order: Frame, send: Callable[[Frame], None], *, limited: bool) -> None:
        self.number: int = order["gen"]
        self.max_tokens: int = order["max_tokens"]
        self.carried: int = order["carried_tokens"]
        self.tokens: int = self.carried
        """Of the answer so far, those of earlier runs included."""
        self.reason: str | None = None
        """Why the answer is over; None while it goes on, or when nothing but the library has ended it."""
        self.thought_out = False
        """The thoughts have used their tokens: they are to be closed."""
        self.repeated = 0
        """Tokens that were made before and were made again."""
        self.sent_at = float("-inf")
        """When its last frame was sent; seconds of the monotonic clock."""
        self._order = order
        self._send = send
        self._counts = bool(self.carried) or not limited
        self._utf8 = Utf8Stream()
        self._reader = AnswerReader(order)
        self._repetition: RepetitionDetector | None = None
        self._raw: list[str] = []

    @property
    def left(self) -> int:
        """Return how many tokens the library may still make.

        White space that was carried is made again and not counted: it is no more than its characters.
        """
        return self.max_tokens - self.tokens + self._reader.again

    @property
    def whole(self) -> bool:
        """Return whether it ends with a whole character."""
        return not self._utf8.pending

    @property
    def has_news(self) -> bool:
        """Return whether something was not sent."""
        return bool(self._raw) or self._reader.has_pieces

    @property
    def unanswered(self) -> bool:
        """Return whether it ends between thoughts and answer, and can be gone on with."""
        own_template = self._order["thinking"]  # what the library makes of a prompt cannot be gone on with
        return self.tokens < self.max_tokens and not own_template and self._reader.unanswered

    @property
    def thinks_too_long(self) -> bool:
        """Return whether the thoughts that were carried have used their tokens already."""
        return self._reader.thinks_too_long and self.tokens < self.max_tokens

    @property
    def written(self) -> str | None:
        """Return what the model wrote, where that is not what was shown."""
        return self._reader.written()

    def read(self, raw: bytes) -> bool:
        """Read one token; False when it was made before."""
        piece = self._utf8.feed(raw)
        if piece and not self._reader.feed(piece):
            self.repeated += 1
            return False
        self.tokens += 1
        if piece:
            self._raw.append(piece)
        reader = self._reader
        if not reader.plain and reader.stopped:
            self.reason = "stop"
        elif self.tokens >= self.max_tokens and self._counts:
            self.reason = "length"
        self.thought_out = not reader.plain and self.thinks_too_long
        return True

    def look_for_loop(self, raw: bytes) -> None:
        """End an answer that repeats itself; changes no text, so the token may be on its way already."""
        if self._repetition is None:  # behind the first token, which nobody has to wait for then
            self._repetition = RepetitionDetector(min_tokens=_LOOP_TOKENS)
            for piece in self._order["carried"]:
                self._repetition.feed(piece.encode())
        if self._repetition.feed(raw) and self.reason is None:
            self.reason = "repetition"

    def close_thoughts(self) -> str:
        """Close the thoughts; return the prompt with which the model goes on behind them."""
        self._utf8.flush()  # half a character is no thought
        self._raw.append(self._reader.close_thoughts())
        self.thought_out = False
        return self.so_far

    @property
    def so_far(self) -> str:
        """Return the prompt with all that was written."""
        carried = len("".join(self._order["carried"]).rstrip())
        prompt: str = self._order["prompt"]
        return prompt[: len(prompt) - carried] + self._reader.so_far

    def flush(self) -> None:
        """Send what is new."""
        pieces, raw = self._reader.take(), self._raw
        frame = {"t": "tokens", "gen": self.number, "n": self.tokens, "d": pieces}
        if raw != pieces:  # nearly all text is shown as it is made, and need not be sent twice
            frame["r"] = raw
        self._send(frame)
        self._raw = []
        self.sent_at = time.monotonic()

    def end(self, reason: str | None) -> None:
        """Send the rest of an answer that is over for this reason."""
        if reason != "preempted":  # else what is held back is read again by the next run
            self._reader.end(self._utf8.flush(), complete=reason == "stop")
        if self.has_news:
            self.flush()
