"""The private language of daemon and worker: one JSON object a line, over a socketpair.

To the worker: `load`, then any number of `run`, `batch`, `probe`, `revoke`, `give_way`, `abort`, and `stop`.
A `batch` holds the `run` frames of its columns; each is told of and ended by its own number. A `probe` is a
run without an answer; its `done` tells what was found.
From the worker: `hello`, `ready` or `failed`, then for each run `started`, `tokens`..., `done`.
Each run has a generation number, and a frame of a generation that has ended is dropped.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.json import Decoder, Encoder

MAX_FRAME_BYTES = 64 * 1024 * 1024

Frame = Mapping[str, Any]

_encode = Encoder().encode
_decode_json = Decoder().decode
"""Made once, and by a library that is ten times as fast: there is a frame for each token."""


class FrameError(Exception):
    """Bytes on the socketpair that are no frame: the other side is not to be trusted any more."""


def encode_frame(frame: Frame) -> bytes:
    """Return the line of a frame.

    Raises:
        UnicodeEncodeError: Half a surrogate pair. (What is not finite becomes null: JSON has no word for it.)
    """
    return _encode(frame) + b"\n"


class FrameReader(Struct):
    """Cut a stream of bytes into frames."""

    _held: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they come and return the frames that are complete.

        Raises:
            FrameError: A line is not a JSON object of whole characters, or longer than MAX_FRAME_BYTES.
        """
        if not self._held and 0 <= data.find(b"\n") == len(data) - 1:
            return [_decode(data)]  # nearly always a frame comes alone and whole
        self._held += data
        if b"\n" not in data:
            if len(self._held) > MAX_FRAME_BYTES:
                raise FrameError(f"a frame is longer than {MAX_FRAME_BYTES} bytes")
            return []
        *lines, rest = self._held.split(b"\n")
        self._held = bytearray(rest)
        return [_decode(line) for line in lines]


def _decode(line: bytes | bytearray) -> Frame:
    try:
        frame = _decode_json(line)
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"a frame of {len(line)} bytes is not JSON") from exc
    if not isinstance(frame, dict):
        raise FrameError("a frame is not a JSON object")
    return frame
