"""Put together one answer from deltas and the final, in whatever order and number they come.

Pure. Deltas are numbered within an attempt and have no gaps at the sender; a repeated one is dropped, a
missing one holds the later ones back until it comes or the final tells the whole text.

Rule: what was given out is never contradicted. A new attempt that says something else ends the answer.
"""

from .protocol import Delta, Final


class AnswerChanged(Exception):
    """A later attempt says something else than what was given out already."""


class Answer:
    """The text and thoughts of one request so far."""

    def __init__(self) -> None:
        self.spoken = ""
        """Text that was given out."""
        self._thought = 0
        """Characters of thoughts that were given out."""
        self._attempt = 0
        self._parts: list[Delta] = []
        """Valid deltas of the attempt from number 0 on, without gaps."""
        self._text = ""
        self._thoughts = ""
        self._held: dict[int, Delta] = {}
        self._unplaced: dict[int, list[Delta]] = {}
        """Deltas of an attempt whose `restarted` has not come yet."""

    def add(self, delta: Delta) -> tuple[str, str]:
        """Take a delta; return the text and the thoughts that can be given out now.

        Raises:
            AnswerChanged: They contradict what was given out.
        """
        if self._attempt == 0:
            self._attempt = delta.attempt
        if delta.attempt < self._attempt:
            return "", ""
        if delta.attempt > self._attempt:
            if delta.seq > 0:
                self._unplaced.setdefault(delta.attempt, []).append(delta)
                return "", ""
            self._begin(delta.attempt, 0)
        return self._take([delta])

    def restart(self, attempt: int, from_seq: int) -> tuple[str, str]:
        """A new attempt begins; deltas below `from_seq` stay valid. Returns what `add` does.

        Raises:
            AnswerChanged: What follows contradicts what was given out.
        """
        if attempt <= self._attempt:
            return "", ""
        self._begin(attempt, from_seq)
        return self._take(self._unplaced.pop(attempt, []))

    def finish(self, final: Final) -> tuple[str, str]:
        """Take the outcome; return what of its text and thoughts was not given out.

        Raises:
            AnswerChanged: It contradicts what was given out.
        """
        thoughts = final.thinking[self._thought :]
        self._thought += len(thoughts)
        if self.spoken.startswith(final.text):
            # It was cut, or failed after deltas that its partial text no longer holds.
            if final.truncated or final.error is not None or self.spoken == final.text:
                return "", thoughts
            raise AnswerChanged
        return self._give(final.text), thoughts

    def _begin(self, attempt: int, from_seq: int) -> None:
        self._attempt = attempt
        self._parts = self._parts[:from_seq]
        self._text = "".join(part.text for part in self._parts)
        self._thoughts = "".join(part.thinking for part in self._parts)
        self._held.clear()

    def _take(self, deltas: list[Delta]) -> tuple[str, str]:
        for delta in deltas:
            if delta.seq >= len(self._parts):
                self._held.setdefault(delta.seq, delta)
        added = False
        while (part := self._held.pop(len(self._parts), None)) is not None:
            self._parts.append(part)
            self._text += part.text
            self._thoughts += part.thinking
            added = True
        if not added:
            return "", ""
        thoughts = self._thoughts[self._thought :]
        self._thought = max(self._thought, len(self._thoughts))
        return self._give(self._text), thoughts

    def _give(self, text: str) -> str:
        if len(text) < len(self.spoken):
            if not self.spoken.startswith(text):
                raise AnswerChanged
            return ""
        if not text.startswith(self.spoken):
            raise AnswerChanged
        new = text[len(self.spoken) :]
        self.spoken = text
        return new
