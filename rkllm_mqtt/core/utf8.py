"""Turn the bytes of tokens into text: whole characters only, whatever the bytes are.

Pure. A token may end in the middle of a character, and a model may produce bytes that are no UTF-8 at all.
"""

import codecs

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Utf8Stream:
    """Incremental decoder for the answer of one run; never raises for any bytes.

    The result does not depend on where the bytes were cut: joined, it equals
    `data.decode("utf-8", "replace")` without the NUL characters.
    """

    def __init__(self) -> None:
        self._decoder = _new_decoder(errors="replace")

    def feed(self, data: bytes) -> str:
        """Return the characters completed by `data`; an unfinished one at its end is kept for later.

        Invalid bytes become U+FFFD. NULs are dropped: a C string or an MQTT string cannot carry one.
        """
        return self._decoder.decode(data).replace("\0", "")

    @property
    def pending(self) -> bool:
        """Return whether a character has begun and is not whole."""
        return bool(self._decoder.getstate()[0])

    def flush(self) -> str:
        """Return U+FFFD for a character that never became whole, else nothing; the stream starts afresh."""
        return self._decoder.decode(b"", final=True)
