"""Loading: the defaults as the third witness, typed functions, refusals."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from rkllmrt import LibraryRefused, RkllmError, Unsupported, elf, library, open_library, simulator
from rkllmrt.library import ABIS, groups_by_defaults

BuildRecorder = Callable[..., Path]


def test_each_group_is_opened_with_its_own_layout(group: str, build_recorder: BuildRecorder) -> None:
    opened = open_library(build_recorder(group))
    assert (opened.group, opened.warnings) == (group, ())
    assert (
        ctypes.sizeof(opened.structs["RKLLMInput"])
        == {"A": 32, "B": 32, "C": 56, "D": 64, "E": 160, "F": 208}[group]
    )


def test_defaults_are_read_where_the_library_put_them(group: str, build_recorder: BuildRecorder) -> None:
    defaults = open_library(build_recorder(group)).default_params()
    expected = {"max_context_len": 512, "max_new_tokens": -1, "top_k": 40, "top_p": 0.9, "temperature": 0.8}
    expected |= {"repeat_penalty": 1.1, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "base_domain_id": 0}
    expected |= {"model_path": None, "skip_special_token": True, "is_async": False}
    if group != "A":
        expected |= {"n_keep": -1, "embed_flash": 1, "enabled_cpus_num": 4}
    if group in "DEF":
        expected |= {"n_batch": 1, "use_cross_attn": 0}
    assert defaults | expected == defaults
    assert ("img_start" in defaults) == (group in "ABCD")
    assert ("ignore_eos_token" in defaults) == (group in "EF")


@pytest.mark.parametrize(
    ("built", "stated"),
    [("B", "1.1.4"), ("D", "1.3.0"), ("D", "1.3.1"), ("E", "1.2.3"), ("F", "1.2.1")],
)
def test_defaults_that_lie_elsewhere_than_the_version_says_refuse(
    built: str, stated: str, build_recorder: BuildRecorder
) -> None:
    with pytest.raises(LibraryRefused, match=r"contradicts its symbols|but its defaults lie where") as caught:
        open_library(build_recorder(built, stated))
    assert caught.value.hint


def test_an_override_that_the_defaults_contradict_is_refused_too(build_recorder: BuildRecorder) -> None:
    with pytest.raises(
        LibraryRefused, match=r"version 1\.3\.0 means layout E, but its defaults lie where B or C or D"
    ):
        open_library(build_recorder("D"), version="1.3.0")


@pytest.mark.parametrize(("group", "decided"), [("D", "D"), ("E", "F"), ("F", "F")])
def test_without_a_version_the_defaults_tell_d_from_e_and_f(
    group: str, decided: str, build_recorder: BuildRecorder
) -> None:
    opened = open_library(build_recorder(group, None))
    assert (opened.version, opened.group) == ("", decided)
    assert opened.capabilities.n_batch == (group == "D"), "the stride of arrays is known for D only"


def test_defaults_that_are_not_the_documented_ones_warn(build_recorder: BuildRecorder) -> None:
    opened = open_library(build_recorder("D", "", "-DSKEWED_DEFAULTS"))
    assert "not the documented ones" in opened.warnings[0]


def test_neither_version_nor_known_defaults_refuse_and_a_stated_version_helps(
    build_recorder: BuildRecorder,
) -> None:
    path = build_recorder("E", None, "-DSKEWED_DEFAULTS")
    with pytest.raises(LibraryRefused, match="neither version, symbols nor defaults"):
        open_library(path)
    assert open_library(path, version="1.3.0").group == "E"


def test_bytes_left_over_from_another_layout_do_not_mislead(build_recorder: BuildRecorder) -> None:
    block = open_library(build_recorder("E")).default_block()
    block[92:94] = b"\x01\x04"  # where D has embed_flash and enabled_cpus_num; E leaves these bytes unwritten
    assert groups_by_defaults(block) == {"E", "F"}


def test_a_library_for_another_machine_is_refused_before_it_is_loaded(
    build_recorder: BuildRecorder, tmp_path: Path
) -> None:
    foreign = bytearray(build_recorder("D").read_bytes())
    other = 183 if elf.own_machine().name != "aarch64" else 62
    foreign[18:20] = other.to_bytes(2, "little")
    path = tmp_path / "librkllmrt.so"
    path.write_bytes(foreign)
    with pytest.raises(LibraryRefused, match="this Python is for"):
        open_library(path)


def test_a_library_whose_dependency_is_absent_is_refused_with_the_name(
    compile_c: Callable[..., Path],
) -> None:
    needs = compile_c(
        "int needed_elsewhere(void);\nint rkllm_createDefaultParam(void) { return needed_elsewhere(); }\n"
        + "".join(
            f"int {name}(void) {{ return 0; }}\n"
            for name in ABIS["A"].functions
            if name != "rkllm_createDefaultParam"
        ),
        "-Wl,-z,now",
    )
    with pytest.raises(LibraryRefused, match="needed_elsewhere"):
        open_library(needs, version="1.1.4")


def test_every_function_has_argument_types(group: str, build_recorder: BuildRecorder) -> None:
    opened = open_library(build_recorder(group))
    for name, (_, arguments) in ABIS[group].functions.items():
        with pytest.raises((ctypes.ArgumentError, TypeError)):
            opened.status_of(name, *[object()] * max(1, len(arguments)) if arguments else [object()])


def test_a_function_that_the_release_lacks_is_unsupported(build_recorder: BuildRecorder) -> None:
    with pytest.raises(Unsupported, match=r"1\.1\.4 has no rkllm_clear_kv_cache"):
        open_library(build_recorder("A")).call("rkllm_clear_kv_cache", None, 0)


SINCE = {
    "B": "keep_history n_keep cpu_selection logits clear_kv_cache chat_template prefix_reuse",
    "C": "many_images",
    "D": "n_batch roles thinking_switch function_tools cross_attention perf kv_cache_size pause ranges",
    "E": "per_run_sampling per_run_max_new_tokens ignore_eos_token tokenizer_callback embed_callback "
    "image_tags video release_output",
    "F": "audio",
}


def test_capabilities_are_those_that_came_up_to_the_group(group: str, build_recorder: BuildRecorder) -> None:
    capabilities = open_library(build_recorder(group)).capabilities
    expected = set().union(*(names.split() for since, names in SINCE.items() if since <= group))
    assert {name for name in capabilities.__slots__ if getattr(capabilities, name)} == expected


def test_arrays_are_not_offered_for_a_release_whose_stride_is_unknown(build_recorder: BuildRecorder) -> None:
    assert not open_library(build_recorder("F", "1.4.0")).capabilities.n_batch


def test_every_release_of_the_simulator_opens_without_a_warning(version: str) -> None:
    opened = open_library(simulator.build(version))
    assert (opened.version, opened.warnings) == (version, ())
    assert opened.default_params()["top_p"] == 0.9


def test_refusals_are_errors_of_the_tree() -> None:
    assert issubclass(LibraryRefused, RkllmError)
    assert library.OVERRIDE_HINT
