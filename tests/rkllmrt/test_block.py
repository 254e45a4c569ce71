"""Memory that the library reads."""

import ctypes

import pytest

from rkllmrt import InvalidInput
from rkllmrt.block import Block, int32_array
from rkllmrt.library import ABIS, composites


def test_structs_are_contiguous_zeroed_and_followed_by_zeros(group: str) -> None:
    struct = composites(ABIS[group])["RKLLMInput"]
    block = Block(struct, 3)
    size = ctypes.sizeof(struct)
    assert [ctypes.addressof(item) - block.address for item in block.items] == [0, size, 2 * size]
    assert ctypes.string_at(block.address, 3 * size + 512) == bytes(3 * size + 512)


def test_a_block_may_start_with_what_the_library_returned() -> None:
    struct = composites(ABIS["D"])["RKLLMParam"]
    start = bytes(range(256)) * 2
    block = Block(struct, start=start)
    assert ctypes.string_at(block.address, 512) == start


def test_what_a_pointer_was_given_lives_as_long_as_the_block() -> None:
    block = Block(composites(ABIS["D"])["RKLLMTokenInput"])
    address = block.keep_int32([1, 2, 3])
    floats = block.copy_floats(memoryview(b"12345678"), "embed", at_least=2)
    assert ctypes.string_at(address, 12) == bytes(int32_array([1, 2, 3]))
    assert ctypes.string_at(floats, 8) == b"12345678"
    assert len(block._kept) == 3, "the memory itself and both copies"


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_an_integer_that_would_be_cut_is_refused(value: int) -> None:
    with pytest.raises(InvalidInput):
        int32_array([0, value])
