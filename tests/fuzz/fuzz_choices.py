"""Bytes as a row of choices: how a fuzz target builds structured input without the fuzzer's own library."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Takes choices from the front of some bytes; when they are used up every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Return how many bytes are left."""
        return len(self._data) - self._at

    def number(self, below: int) -> int:
        """Return a number from 0 to `below` - 1; takes one byte, two above 256."""
        size = 1 if below <= 256 else 2
        return int.from_bytes(self.take(size), "big") % below

    def one(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.number(len(options))]

    def flag(self) -> bool:
        """Return yes or no."""
        return self.number(2) == 1

    def take(self, count: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def text(self, longest: int = 64) -> str:
        """Return a text; lone surrogates and NULs are possible, as they are in JSON."""
        text = self.take(self.number(longest + 1)).decode("utf-8", "replace")
        return text + "\ud800" if self.number(16) == 15 else text

    def rest(self) -> bytes:
        """Return what is left."""
        return self.take(self.left)
