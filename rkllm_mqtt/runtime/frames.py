"""The private language of daemon and worker: one JSON object a line, over a socketpair.

To the worker: `load`, then any number of `run`, `batch`, `probe`, `revoke`, `give_way`, `abort`, and `stop`.
A `batch` holds the `run` frames of its columns; each is told of and ended by its own number. A `probe` is a
run without an answer; its `done` tells what was found.
From the worker: `hello`, `ready` or `failed`, then for each run `started`, `tokens`..., `done`.
Each run has a generation number, and a frame of a generation that has ended is dropped.
"""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

MAX_FRAME_BYTES = 64 * 1024 * 1024

Frame = Mapping[str, Any]

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: `json.dumps` with arguments makes an encoder for each call, which is half of its time."""


class FrameError(Exception):
    """Bytes on the socketpair that are no frame: the other side is not to be trusted any more."""


def encode_frame(frame: Frame) -> bytes:
    """Return the line of a frame."""
    return _ENCODE(frame).encode("utf-8") + b"\n"


class FrameReader(Struct):
    """Cut a stream of bytes into frames."""

    _held: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they come and return the frames that are complete.

        Raises:
            FrameError: A line is not a JSON object of whole characters, or longer than MAX_FRAME_BYTES.
        """
        self._held += data
        if b"\n" not in data:
            if len(self._held) > MAX_FRAME_BYTES:
                raise FrameError(f"a frame is longer than {MAX_FRAME_BYTES} bytes")
            return []
        *lines, rest = self._held.split(b"\n")
        self._held = bytearray(rest)
        return [_decode(line) for line in lines]


def _decode(line: bytearray) -> Frame:
    try:
        frame = json.loads(line)
        if b"\\u" in line:  # half a surrogate pair can hide in an escape only, and could not be published
            encode_frame(frame)
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"a frame of {len(line)} bytes is not JSON") from exc
    if not isinstance(frame, dict):
        raise FrameError("a frame is not a JSON object")
    return frame
