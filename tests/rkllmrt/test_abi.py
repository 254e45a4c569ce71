"""The tables against the numbers of every header, and against what a C compiler makes of the simulator's."""

import ctypes
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rkllmrt import RELEASES, abi
from rkllmrt.library import ABIS

MODELS = ("lp64", "ilp32")


def measured(group: str, model: str) -> dict[str, dict]:
    """Return size and members of every struct as ctypes lays the tables out."""
    made = abi.composites(ABIS[group], ilp32=model == "ilp32")
    return {
        name: {"size": ctypes.sizeof(made[name]), "fields": dict(members(made, ABIS[group], name))}
        for name in made
        if name not in ABIS[group].unions
    }


def members(
    made: dict, table: abi.Abi, struct: str, prefix: str = "", base: int = 0
) -> Iterator[tuple[str, list]]:
    for name, word in table.structs[struct]:
        place = getattr(made[struct], name or f"_{word}")
        if not name:
            yield from members(made, table, word, prefix, base + place.offset)
            continue
        yield prefix + name, [base + place.offset, place.size]
        if struct == "RKLLMMultiModalInput" and word in table.structs:
            yield from members(made, table, word, f"{name}.", place.offset)


@pytest.mark.parametrize("model", MODELS)
def test_every_struct_has_the_size_and_offsets_of_its_header(
    version: str, model: str, abi_data: dict
) -> None:
    if model == "lp64" and ctypes.sizeof(ctypes.c_void_p) != 8:
        model = "ilp32"
    group = abi_data["releases"][version]
    found = measured(RELEASES[version], model)
    for struct, expected in abi_data["groups"][group][model].items():
        assert found[struct] == {"size": expected["size"], "fields": expected["fields"]}, struct


def test_no_struct_is_in_the_tables_that_is_not_in_the_header(group: str, abi_data: dict) -> None:
    ours = set(ABIS[group].structs) - set(ABIS[group].unions)
    unnamed_in_c = {"RKLLMImageInput", "RKLLMVideoInput", "RKLLMAudioInput"}
    assert ours - unnamed_in_c == set(abi_data["groups"][group]["lp64"])


def test_the_known_releases_are_those_of_the_data(abi_data: dict) -> None:
    assert dict(RELEASES) == abi_data["releases"]


C_WORDS = {
    "int": "int",
    "RKLLMParam": "RKLLMParam",
    "LLMHandle": "handle",
    "LLMHandle*": "handle*",
    "const char*": "string",
    "LLMResultCallback": "callback",
    "RKLLMCallback*": "callback",
}


def test_every_function_has_the_arguments_of_its_header(group: str, abi_data: dict) -> None:
    expected = {
        name: (C_WORDS[result], tuple(C_WORDS.get(argument, "pointer") for argument in arguments))
        for name, (result, arguments) in abi_data["groups"][group]["functions"].items()
    }
    assert dict(ABIS[group].functions) == expected


def test_callbacks_are_what_the_header_says(group: str, abi_data: dict) -> None:
    declared = abi_data["groups"][group]["callbacks"]
    assert ABIS[group].pauses == (declared["LLMResultCallback"][0] == "int")
    assert ABIS[group].callback_struct == ("LLMTokenizerCallback" in declared)


def test_enums_have_the_values_of_the_header(group: str, abi_data: dict) -> None:
    ours = {
        "LLMCallState": (abi.NORMAL, abi.WAITING, abi.FINISH, abi.ERROR, abi.HIDDEN_LAYER),
        "RKLLMInputType": (abi.PROMPT, abi.TOKEN, abi.EMBED, abi.MULTIMODAL),
        "RKLLMInferMode": (abi.GENERATE, abi.GET_LAST_HIDDEN_LAYER, abi.GET_LOGITS),
    }
    for enum, values in abi_data["groups"][group]["enums"].items():
        assert tuple(values.values()) == ours[enum][: len(values)]


def test_a_c_compiler_lays_the_structs_out_as_the_tables_do(
    group: str, compile_c: Callable[..., Path]
) -> None:
    model = "lp64" if ctypes.sizeof(ctypes.c_void_p) == 8 else "ilp32"
    ours = measured(group, model)
    in_c = {
        name: struct
        for name, struct in ours.items()
        if not name.endswith(("ImageInput", "VideoInput", "AudioInput"))
    }
    lines = []
    for struct, layout in in_c.items():
        lines.append(f'printf("[\\"{struct}\\", \\"\\", 0, %zu],\\n", sizeof({struct}));')
        lines += [
            f'printf("[\\"{struct}\\", \\"{field}\\", %zu, %zu],\\n", offsetof({struct}, {field}), '
            f"sizeof((({struct} *)0)->{field}));"
            for field in layout["fields"]
        ]
    source = (
        '#include <stdio.h>\n#include "rkllm_abi.h"\nint main(void) {\n'
        + "\n".join(lines)
        + "\nreturn 0;\n}\n"
    )
    program = compile_c(source, f"-DRKLLM_ABI_GROUP={'ABCDEF'.index(group) + 1}", shared=False)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    compiled: dict[str, dict] = {}
    for struct, field, offset, size in json.loads(f"[{printed.rstrip().rstrip(',')}]"):
        if field:
            compiled[struct]["fields"][field] = [offset, size]
        else:
            compiled[struct] = {"size": size, "fields": {}}
    assert compiled == in_c
