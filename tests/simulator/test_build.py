"""Every release builds, exports exactly its functions, and says what it is."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rkllmrt import simulator

BASE = {
    "rkllm_createDefaultParam",
    "rkllm_init",
    "rkllm_load_lora",
    "rkllm_load_prompt_cache",
    "rkllm_release_prompt_cache",
    "rkllm_destroy",
    "rkllm_run",
    "rkllm_run_async",
    "rkllm_abort",
    "rkllm_is_running",
}
SINCE_B = {"rkllm_clear_kv_cache", "rkllm_set_chat_template"}
SINCE_D = {"rkllm_get_kv_cache_size", "rkllm_set_function_tools", "rkllm_set_cross_attn_params"}


def exported(library: Path) -> set[str]:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    return {line.split()[-1] for line in listing.stdout.splitlines()}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A cache with the part that all releases share, which takes most of the time to compile."""
    folder = tmp_path / "kept"
    folder.mkdir()
    library = simulator.build()
    core = library.with_name(library.name.replace("librkllmrt-1.3.1", "core")).with_suffix(".o")
    shutil.copy(core, folder)
    return folder


@pytest.mark.parametrize("version", simulator.VERSIONS)
def test_a_release_exports_exactly_its_functions_and_carries_its_version(version: str) -> None:
    group = simulator.VERSIONS[version]
    library = simulator.build(version)
    assert exported(library) == BASE | (SINCE_B if group >= 2 else set()) | (SINCE_D if group >= 4 else set())
    found = re.findall(
        rb"RKLLM SDK \(version:\s*(\d+\.\d+\.\d+\w*) \| target: Linux \|", library.read_bytes()
    )
    assert found == [version.encode()]


def test_the_simulator_is_told_from_other_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.so"
    empty.touch()
    assert simulator.is_simulator(simulator.build())
    assert not simulator.is_simulator(Path(sys.executable).resolve())
    assert not simulator.is_simulator(empty)


def test_the_second_build_is_the_first_ones_file(kept: Path) -> None:
    first = simulator.build("1.2.3", directory=kept)
    made = first.stat().st_mtime_ns
    assert simulator.build("1.2.3", directory=kept) == first
    assert first.stat().st_mtime_ns == made
    assert {path.name.split("-")[0] for path in kept.iterdir()} == {"core", "librkllmrt"}


def test_without_a_compiler_an_earlier_build_serves_and_otherwise_the_error_says_what_to_do(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = simulator.build(directory=kept)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert simulator.build(directory=kept) == library
    with pytest.raises(simulator.CompilerMissing) as missing:
        simulator.build("1.1.4", directory=kept)
    assert "apt install gcc" in missing.value.hint
    assert "apt" not in str(missing.value), "told twice where message and hint are shown"


def test_a_compiler_that_fails_is_reported_with_its_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'no such header' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(simulator.BuildFailed, match="no such header"):
        simulator.build(cc=str(broken), directory=tmp_path / "kept")


def test_an_unknown_release_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2\.0\.0"):
        simulator.build("2.0.0")


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = simulator.build("1.3.0").parent
    shutil.copytree(kept, tmp_path / "rkllmrt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert simulator.build("1.3.0").parent == tmp_path / "rkllmrt"


def test_builders_at_the_same_time_get_the_same_whole_library(kept: Path) -> None:
    built: list[Path] = []
    threads = [
        threading.Thread(target=lambda: built.append(simulator.build("1.2.0", directory=kept)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 3
    assert len(set(built)) == 1
    assert "rkllm_run" in exported(built[0])


@pytest.mark.parametrize("source", sorted(simulator.SOURCES.glob("*.c")), ids=lambda path: path.name)
def test_the_sources_compile_without_a_warning_and_stay_readable(source: Path) -> None:
    strict = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only", '-DRKLLM_SIM_VERSION="0.0.0"']
    subprocess.run(["cc", *simulator.FLAGS, *strict, source], check=True, env=os.environ | {"LC_ALL": "C"})
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.fixture
def homeless(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose home does not exist, and without a compiler; returns what is its folder then."""
    simulator.build(directory=kept)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "absent"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"rkllmrt-{os.getuid()}"


def test_a_user_without_a_home_has_a_private_folder(homeless: Path, kept: Path) -> None:
    homeless.mkdir(mode=0o700)
    for built in kept.iterdir():
        (homeless / built.name).symlink_to(built)
    assert simulator.build().parent == homeless


@pytest.mark.parametrize("made", ["writable by all", "a link"])
def test_a_folder_in_which_others_may_have_put_a_library_is_refused(homeless: Path, made: str) -> None:
    if made == "a link":
        homeless.symlink_to(homeless.parent)
    else:
        homeless.mkdir()
        homeless.chmod(0o777)
    with pytest.raises(simulator.BuildFailed, match="not a folder of its own") as refused:
        simulator.build()
    assert "XDG_CACHE_HOME" in refused.value.hint
