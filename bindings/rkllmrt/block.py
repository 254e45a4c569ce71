"""Zeroed memory that the library reads: structs in front, slack behind, and what they point to kept alive."""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from rkllmrt.abi import SLACK, Composite
from rkllmrt.errors import InvalidInput


class Block:
    """`count` structs, contiguous with their exact stride, followed by 512 zero bytes.

    The slack covers a library whose struct is longer than the table knows. Keep the block for as long as the
    library may read it; it keeps what its pointers were given.
    """

    def __init__(self, struct: Composite, count: int = 1, *, start: bytes | bytearray = b"") -> None:
        memory_type, items_type = _arrays(struct, count)
        memory = memory_type(*start[: memory_type._length_]) if start else memory_type()
        self.items: Any = items_type.from_buffer(memory)
        """The structs; a bytes value assigned to one of their string fields is kept alive by ctypes."""
        self.first: Any = self.items[0]
        """The struct in front."""
        self.address = ctypes.addressof(memory)
        self._kept: list[object] = [memory]

    def keep(self, block: "Block") -> int:
        """Keep `block` as long as this one and return its address."""
        self._kept.append(block)
        return block.address

    def copy_floats(self, values: Any, what: str, *, at_least: int) -> int:
        """Copy a buffer of float32 into memory of this block's life and return its address.

        Raises:
            InvalidInput: no buffer, not contiguous, not float32 (or its bytes), or fewer than `at_least`.
        """
        try:
            view = memoryview(values)
        except TypeError as exc:
            raise InvalidInput(f"{what} has no buffer interface") from exc
        if not view.c_contiguous or view.format.lstrip("<=@") not in ("f", "B"):
            raise InvalidInput(f"{what} must be contiguous float32, not {view.format!r}")
        if view.nbytes < 4 * at_least or view.nbytes % 4:
            raise InvalidInput(f"{what} has {view.nbytes} bytes, needs at least {4 * at_least} in steps of 4")
        copy = (ctypes.c_uint8 * view.nbytes).from_buffer_copy(view)
        self._kept.append(copy)
        return ctypes.addressof(copy)

    def keep_int32(self, values: Sequence[int]) -> int:
        """Write integers into an int32 array of this block's life and return its address.

        Raises:
            InvalidInput: one does not fit.
        """
        array = int32_array(values)
        self._kept.append(array)
        return ctypes.addressof(array)


@cache  # ctypes itself forgets an array type that is not in use, and makes it anew for the next run
def _arrays(struct: Composite, count: int) -> tuple[Any, Any]:
    """Return the types of the memory for `count` structs, and of the structs."""
    size = ctypes.sizeof(struct) * count + SLACK
    return ctypes.c_uint8 * size, struct * count


def int32_array(values: Sequence[int]) -> "ctypes.Array[ctypes.c_int32]":
    """Return `values` as C int32.

    Raises:
        InvalidInput: one does not fit.
    """
    if any(not -(1 << 31) <= value < 1 << 31 for value in values):
        raise InvalidInput("a number does not fit 32 bits")
    return (ctypes.c_int32 * len(values))(*values)
