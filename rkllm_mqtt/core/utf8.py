"""Turn the bytes of tokens into text: whole characters only, whatever the bytes are.

Pure. A token may end in the middle of a character, and a model may produce bytes that are no UTF-8 at all.
"""

import codecs

_decode = codecs.utf_8_decode
"""What the incremental decoder of `codecs` is made of; it is called for every token."""


class Utf8Stream:
    """Incremental decoder for the answer of one run; never raises for any bytes.

    The result does not depend on where the bytes were cut: joined, it equals
    `data.decode("utf-8", "replace")` without the NUL characters.
    """

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: bytes) -> str:
        """Return the characters completed by `data`; an unfinished one at its end is kept for later.

        Invalid bytes become U+FFFD. NULs are dropped: a C string or an MQTT string cannot carry one.
        """
        if self._begun:
            data = self._begun + data
        text, used = _decode(data, "replace", False)
        self._begun = data[used:]
        return text.replace("\0", "")

    @property
    def pending(self) -> bool:
        """Return whether a character has begun and is not whole."""
        return bool(self._begun)

    def flush(self) -> str:
        """Return U+FFFD for a character that never became whole, else nothing; the stream starts afresh."""
        begun, self._begun = self._begun, b""
        return _decode(begun, "replace", True)[0]
