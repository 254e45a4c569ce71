"""The byte stream under paho: it reads ahead and collects writes, and never blocks.

paho asks for one byte, then another, then the rest, and sends packet by packet: four system calls a message.
Here a read takes what the kernel has, and what one turn of the event loop writes leaves in one piece.

Rule 1: `send` takes all it is given, always; so the border between two calls is a border between packets.
Rule 2: nothing leaves before `flush`.
"""

from collections.abc import Callable
from typing import Protocol

READ_BYTES = 16_384
"""One read, and about one turn of the loop: a hundred small messages, 5 ms; also the largest TLS record."""

WRITE_BYTES = 16_384
"""One write. A TLS write that could not finish is repeated with at least the same bytes."""

_PUBLISH = 3
_SHORTEST = 4
"""A PUBLISH with the length of a topic, bytes."""

try:
    import ssl
except ImportError:  # without TLS it is left out, see `commands.run`
    WOULD_BLOCK: tuple[type[OSError], ...] = (BlockingIOError,)
else:
    WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stream(Protocol):
    """A connected non-blocking socket: plain, TLS, or paho's websocket wrapper around one."""

    def recv(self, bufsize: int, /) -> bytes:
        """Return up to `bufsize` bytes; b"" at the end of the stream."""

    def send(self, data: bytes, /) -> int:
        """Return how many bytes were taken."""

    def close(self) -> None:
        """Release the socket."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""


class Link:
    """Buffers around one connected socket; owns it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        # TLS holds decrypted bytes that the kernel no longer announces; a plain socket has no such method.
        self._pending: Callable[[], int] | None = getattr(stream, "pending", None)
        self._ahead = b""
        self._position = 0
        self._outgoing = bytearray()
        self.error: OSError | None = None
        """What broke the stream, for the log; paho swallows it."""

    def recv(self, bufsize: int) -> bytes:
        """Return 1 to `bufsize` bytes, or b"" at the end of the stream.

        Raises:
            BlockingIOError: Nothing has arrived.
            OSError: The stream is broken; also kept in `error`.
        """
        position = self._position
        piece = self._ahead[position : position + bufsize]
        if piece:
            self._position = position + len(piece)
            return piece
        self._read(max(READ_BYTES, min(bufsize, READ_BYTES * 16)))
        self._position = min(bufsize, len(self._ahead))
        return self._ahead[: self._position]

    def take_publish(self) -> tuple[int, bytes] | None:
        """Return the next packet, its first byte and what follows the fixed header, if it is a PUBLISH.

        None where it is another one, is not there whole, or nothing is: `recv` then tells.
        """
        if self._position >= len(self._ahead):
            try:
                self._read(READ_BYTES)
            except OSError:
                return None
        data, start = self._ahead, self._position
        if len(data) - start < _SHORTEST or data[start] >> 4 != _PUBLISH:
            return None
        length, at = 0, start + 1
        for shift in (0, 7, 14, 21):
            byte = data[at]
            length |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80 or at >= len(data):
                break
        if byte >= 0x80 or at + length > len(data):
            return None
        self._position = at + length
        return data[start], data[at : at + length]

    def _read(self, most: int) -> None:
        """Read ahead, everything before being used up."""
        try:
            self._ahead, self._position = self._stream.recv(most), 0
        except WOULD_BLOCK as exc:
            raise BlockingIOError from exc
        except OSError as exc:
            self.error = exc
            raise

    @property
    def buffered(self) -> int:
        """Return how many bytes `recv` would give without the kernel, which no event will announce."""
        ahead = len(self._ahead) - self._position
        return ahead if ahead or self._pending is None else self._pending()

    def send(self, data: bytes | bytearray) -> int:
        """Take all of `data` for the next flush."""
        self._outgoing += data
        return len(data)

    @property
    def unsent(self) -> int:
        """Return how many bytes wait for `flush`."""
        return len(self._outgoing)

    def flush(self) -> bool:
        """Write what the kernel takes; return True when nothing is left.

        Raises:
            OSError: The stream is broken; also kept in `error`.
        """
        while self._outgoing:
            try:
                taken = self._stream.send(bytes(self._outgoing[:WRITE_BYTES]))
            except WOULD_BLOCK:
                return False
            except OSError as exc:
                self.error = exc
                raise
            if (
                not taken
            ):  # a websocket frame left in part: the wrapper holds the rest and wants to be asked again
                return False
            del self._outgoing[:taken]
        return True

    def close(self) -> None:
        """Release the socket; more than once is no error."""
        self._stream.close()

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 after `close`."""
        return self._stream.fileno()

    def setblocking(self, flag: bool) -> None:
        """Accept paho's wish: the stream is non-blocking from the start."""
