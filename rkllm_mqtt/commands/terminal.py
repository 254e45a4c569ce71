"""Write to a person's terminal: a few styles, one line that changes in place, nothing harmful."""

import os
import re
import shutil
from typing import TextIO

# Answers and names come from elsewhere: an escape sequence in them could retitle the window, rewrite
# what was shown, or type a command. New lines and tabs stay; everything else below blank goes.
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_STYLES = {"dim": "2", "bold": "1", "red": "31", "yellow": "33", "green": "32", "banner": "30;43"}


def harmless(text: str) -> str:
    """Return the text without control characters other than new line and tab."""
    return _HARMFUL.sub("", text)


def word(value: object) -> str:
    """Return what a daemon says in one place of a line; a dash for nothing."""
    return harmless(str(value)).replace("\n", " ") if value is not None else "–"


class Terminal:
    """A stream for a person; on a file or a pipe, plain text without styles and live lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty() and os.environ.get("TERM") not in ("dumb", None)
        self._coloured = self.is_terminal and not os.environ.get("NO_COLOR")
        self._live = ""

    def styled(self, text: str, *styles: str) -> str:
        """Return the text in one or more of the styles above."""
        if not self._coloured or not text:
            return text
        codes = ";".join(_STYLES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"

    def write(self, text: str, *styles: str) -> None:
        """Write at once; a live line goes first. Control characters are removed on a terminal."""
        self.clear_live()
        if self.is_terminal:
            text = harmless(text)
        self._stream.write(self.styled(text, *styles))
        self._stream.flush()

    def live(self, text: str) -> None:
        """Show one changing line, cut to the width; nothing where there is no terminal."""
        if not self.is_terminal:
            return
        width = shutil.get_terminal_size().columns
        text = harmless(text).replace("\n", " ")
        if len(text) > width - 1:
            text = text[: max(0, width - 2)] + "…"
        if text == self._live:
            return
        self._stream.write("\r\x1b[K" + self.styled(text, "dim"))
        self._stream.flush()
        self._live = text

    def clear_live(self) -> None:
        """Take the changing line away."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._live = ""
