"""Which release a file is: by its string and its symbols, without loading it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rkllmrt import RELEASES, LibraryRefused, identify, simulator
from rkllmrt.detection import group_of

BuildRecorder = Callable[..., Path]

BARE = """
void *rkllm_createDefaultParam, *rkllm_init, *rkllm_run, *rkllm_abort, *rkllm_destroy;
"""


def test_every_release_of_the_simulator_is_recognised_without_a_warning(version: str) -> None:
    facts = identify(simulator.build(version))
    assert (facts.version, facts.group, facts.warnings) == (version, RELEASES[version], ())


@pytest.mark.parametrize(
    ("version", "group"),
    [
        ("1.1.9", "A"),
        ("1.2.0b3", "B"),
        ("1.2.1b2", "C"),
        ("1.2.2b1", "D"),
        ("1.2.7", "D"),
        ("1.3.0b1", "E"),
        ("1.3.2", "F"),
        ("2.0.0", "F"),
    ],
)
def test_an_unknown_release_is_used_like_the_nearest_and_warns(
    version: str, group: str, build_recorder: BuildRecorder
) -> None:
    facts = identify(build_recorder(group, version))
    assert (facts.version, facts.group, facts.known) == (version, group, False)
    assert f"runtime {version} is not known" in facts.warnings[0]


def test_a_version_that_contradicts_the_symbols_is_refused(build_recorder: BuildRecorder) -> None:
    with pytest.raises(
        LibraryRefused, match=r"1\.1\.4 contradicts its symbols, which belong to 1\.2\.1 or"
    ) as caught:
        identify(build_recorder("D", "1.1.4"))
    assert "state the version" in caught.value.hint


def test_a_stated_version_overrides_a_wrong_string(build_recorder: BuildRecorder) -> None:
    facts = identify(build_recorder("D", "1.1.4"), version="1.2.2")
    assert (facts.version, facts.group) == ("1.2.2", "D")
    assert facts.warnings == ("the library says it is 1.1.4, the configuration says 1.2.2",)


def test_a_stated_version_cannot_override_the_symbols(build_recorder: BuildRecorder) -> None:
    with pytest.raises(LibraryRefused, match="contradicts its symbols"):
        identify(build_recorder("B", None), version="1.3.0")


@pytest.mark.parametrize("stated", ["1.0.1", "0.9.0"])
def test_a_release_before_1_1_0_is_refused_as_too_old(stated: str, build_recorder: BuildRecorder) -> None:
    with pytest.raises(LibraryRefused, match="too old") as caught:
        identify(build_recorder("A", stated))
    assert "1.1.0 or newer" in caught.value.hint


def test_a_library_without_the_calls_of_1_1_0_is_refused_whatever_it_states(
    compile_c: Callable[..., Path],
) -> None:
    with pytest.raises(LibraryRefused, match=r"older than 1\.1\.0"):
        identify(compile_c(BARE), version="1.2.3")


def test_without_a_string_the_symbols_decide_as_far_as_they_can(
    group: str, build_recorder: BuildRecorder
) -> None:
    facts = identify(build_recorder(group, None))
    decided = {"A": "A", "B": "C", "C": "C"}.get(group)
    assert (facts.version, facts.group, facts.known) == ("", decided, group == "A")
    assert "does not state its version" in facts.warnings[0]


def test_a_file_that_states_two_versions_is_refused(build_recorder: BuildRecorder, tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(build_recorder("D").read_bytes() + b"RKLLM SDK (version: 1.2.1 | target: Linux")
    with pytest.raises(LibraryRefused, match=r"several versions: 1\.2\.1, 1\.2\.3"):
        identify(path)
    assert identify(path, version="1.2.3").group == "D"


def test_another_library_is_refused_by_what_it_lacks(compile_c: Callable[..., Path]) -> None:
    with pytest.raises(LibraryRefused, match="is not librkllmrt: it lacks rkllm_abort"):
        identify(compile_c("int rknn_init(void) { return 0; }"))


@pytest.mark.parametrize(
    "content", [b"", b"not a library", b"\x7fELF" + b"\0" * 100, b"\x7fELF\x02\x01" + b"\xff" * 100]
)
def test_a_file_that_is_no_library_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "librkllmrt.so"
    path.write_bytes(content)
    with pytest.raises(LibraryRefused, match="not a shared library"):
        identify(path)


def test_a_truncated_library_is_refused(build_recorder: BuildRecorder, tmp_path: Path) -> None:
    whole = build_recorder("D").read_bytes()
    path = tmp_path / "librkllmrt.so"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LibraryRefused, match="not a shared library") as caught:
        identify(path)
    assert "incomplete download" in caught.value.hint


def test_an_absent_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(LibraryRefused, match=r"absent\.so: No such file"):
        identify(tmp_path / "absent.so")


@pytest.mark.parametrize("version", ["", "1.2", "latest", "v1.2.3"])
def test_an_override_that_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(LibraryRefused, match="is not a runtime version"):
        group_of(version)
