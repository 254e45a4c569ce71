"""The language in which the ABI tables are written, and its translation to ctypes.

A table names C types by words; ctypes then places the fields by the rules of the machine it runs on, so one
table serves 64-bit (LP64) and 32-bit ARM (ILP32). Words of fields:

    string pointer size_t int32 uint32 int8 uint8 float bool enum uint8[N]     and the name of another struct

A field without a name is an anonymous union or struct. Words of functions:

    int handle handle* pointer string callback RKLLMParam (only as a result: by value)
"""

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from msgspec import Struct

Group = Literal["A", "B", "C", "D", "E", "F"]
Fields = tuple[tuple[str, str], ...]
Structs = Mapping[str, Fields]
Functions = Mapping[str, tuple[str, tuple[str, ...]]]
Composite = type[ctypes.Structure] | type[ctypes.Union]

NORMAL, WAITING, FINISH, ERROR, HIDDEN_LAYER = range(5)
"""LLMCallState. HIDDEN_LAYER exists in group A only; later releases deliver hidden states under NORMAL."""

PROMPT, TOKEN, EMBED, MULTIMODAL = range(4)
"""RKLLMInputType."""

GENERATE, GET_LAST_HIDDEN_LAYER, GET_LOGITS = range(3)
"""RKLLMInferMode. GET_LOGITS exists from group B on."""

GO_ON, PAUSE, RELEASE_OUTPUT = range(3)
"""What a result callback may return: PAUSE from group D on, RELEASE_OUTPUT (free the array now) from E on."""

SLACK = 512
"""Bytes of each block handed to the library; more than any known struct, so a layout that is
wrong or newer reads zeros instead of foreign memory."""


class Abi(Struct, frozen=True, eq=False):
    """What the header of one group of releases declares."""

    group: Group
    structs: Structs
    """Every struct; one that contains another stands behind it."""
    unions: Structs
    """The unions among them; they stand before the struct that holds them."""
    functions: Functions
    pauses: bool
    """The result callback returns int, so that it can pause; before D it returns void."""
    callback_struct: bool
    """rkllm_init takes a RKLLMCallback struct instead of a bare function pointer."""

    def has(self, struct: str, field: str) -> bool:
        """Return whether the group's `struct` exists and has `field`."""
        return any(name == field for name, _ in self.structs.get(struct, ()))


class DefaultParamBlock(ctypes.Structure):
    """Receives RKLLMParam by value; larger than any, so that a misjudged layout cannot smash the stack.

    Any struct above 16 bytes is returned through a hidden pointer on every supported machine, hence its
    declared size does not change how the function is called.
    """

    _fields_ = (("bytes", ctypes.c_uint8 * SLACK),)


ResultCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
"""(result, userdata, state) → int. Declared with int for every group: a void caller ignores the register."""

TokenizerCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32
)
"""(userdata, text, bytes of text, int32 room for tokens, their number) → count, negative on error."""

EmbedCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64
)
"""(userdata, int32 tokens, their number, room for float32 rows, bytes of room) → 0 on success."""

_SCALARS: Mapping[str, type] = {
    "string": ctypes.c_char_p,
    "pointer": ctypes.c_void_p,
    "size_t": ctypes.c_size_t,
    "int32": ctypes.c_int32,
    "uint32": ctypes.c_uint32,
    "int8": ctypes.c_int8,
    "uint8": ctypes.c_uint8,
    "float": ctypes.c_float,
    "bool": ctypes.c_bool,
    "enum": ctypes.c_int32,
}

_ARGUMENTS: Mapping[str, type] = {
    "int": ctypes.c_int,
    "handle": ctypes.c_void_p,
    "handle*": ctypes.POINTER(ctypes.c_void_p),
    "pointer": ctypes.c_void_p,
    "string": ctypes.c_char_p,
    "callback": ctypes.c_void_p,
    "RKLLMParam": DefaultParamBlock,
}


@cache
def composites(abi: Abi, *, ilp32: bool = False) -> Mapping[str, Composite]:
    """Return the ctypes class of every struct and union of `abi`, by C name.

    With `ilp32` they are laid out as 32-bit ARM does, whatever the machine: to check the tables, not to call.
    """
    types: dict[str, type] = dict(_SCALARS)
    if ilp32:
        types |= dict.fromkeys(("string", "pointer", "size_t"), ctypes.c_uint32)
    made: dict[str, Composite] = {}
    for name, fields in abi.structs.items():
        base: Composite = ctypes.Union if name in abi.unions else ctypes.Structure
        made[name] = _composite(base, name, fields, types)
        types[name] = made[name]
    return made


def prototype(functions: Functions, name: str) -> tuple[Any, list[Any]]:
    """Return restype and argtypes of the function `name`."""
    result, arguments = functions[name]
    return _ARGUMENTS[result], [_ARGUMENTS[word] for word in arguments]


def _composite(base: Composite, name: str, fields: Fields, types: Mapping[str, type]) -> Composite:
    anonymous = tuple(f"_{word}" for field, word in fields if not field)
    members = tuple((field or f"_{word}", _field_type(word, types)) for field, word in fields)
    metaclass: Any = type(base)
    made: Composite = metaclass(name, (base,), {"_anonymous_": anonymous, "_fields_": members})
    return made


def _field_type(word: str, types: Mapping[str, type]) -> type:
    if word.endswith("]"):
        element, _, count = word[:-1].partition("[")
        scalar: Any = types[element]
        array: type = scalar * int(count)
        return array
    return types[word]
