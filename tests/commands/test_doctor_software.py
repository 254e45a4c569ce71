"""What the doctor says about software, limits, date and journal."""

import os
import resource
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from rkllm_mqtt.commands.doctoring import journal, software
from rkllm_mqtt.commands.doctoring.finding import Level
from rkllm_mqtt.commands.doctoring.subject import Subject, examine
from rkllm_mqtt.config import parse_config
from rkllmrt.simulator import build

TREES = Path(__file__).parents[1] / "host" / "trees"


def subject_for(library: Path | None, root: Path = TREES / "x86", text: str = "") -> Subject:
    subject = examine(parse_config(text, "test", {}), root)
    return subject if library is None else replace(subject, library=library, simulated=False)


@pytest.fixture
def compile_library(tmp_path: Path):
    """Compile a library that exports the given names and holds a version string."""

    def build(version: str, *names: str) -> Path:
        source = tmp_path / "lib.c"
        body = "".join(f"int {name}(void) {{ return 0; }}\n" for name in names)
        literal = f"RKLLM SDK (version: {version} | target: Linux | build: 0)" if version else "none"
        source.write_text(f'const char* note = "{literal}";\n{body}')
        library = tmp_path / "librkllmrt.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        return library

    return build


ALWAYS = [
    f"rkllm_{name}"
    for name in ("createDefaultParam", "init", "run", "abort", "destroy", "load_lora", "load_prompt_cache")
]
NEWER = ["rkllm_clear_kv_cache", "rkllm_get_kv_cache_size"]


def test_a_known_library_is_named_with_its_version(compile_library) -> None:
    found = software.library(subject_for(compile_library("1.2.3", *ALWAYS, *NEWER)))
    assert (found.level, "librkllmrt 1.2.3" in found.sentence) == (Level.OK, True)


def test_an_unknown_version_warns_and_an_old_one_without_prefix_reuse_too(compile_library) -> None:
    found = software.library(subject_for(compile_library("1.9.0", *ALWAYS, *NEWER)))
    assert (found.level, "not known" in found.sentence) == (Level.WARN, True)
    found = software.library(subject_for(compile_library("1.1.4", *ALWAYS)))
    assert (found.level, "whole prompt" in found.sentence) == (Level.WARN, True)


def test_contradictions_and_foreign_libraries_fail(compile_library, tmp_path: Path) -> None:
    contradiction = software.library(subject_for(compile_library("1.3.1", *ALWAYS)))
    assert (contradiction.level, "contradicts" in contradiction.sentence) == (Level.FAIL, True)
    assert contradiction.advice
    foreign = software.library(subject_for(compile_library("", "rknn_init")))
    assert foreign.level is Level.FAIL
    absent = software.library(subject_for(tmp_path / "none.so"))
    assert absent.level is Level.FAIL


def test_a_library_of_another_machine_fails(compile_library) -> None:
    library = compile_library("1.2.3", *ALWAYS, *NEWER)
    image = bytearray(library.read_bytes())
    image[18:20] = (243).to_bytes(2, "little")
    library.write_bytes(image)
    found = software.library(subject_for(library))
    assert (found.level, "riscv" in found.sentence) == (Level.FAIL, True)


def test_the_simulator_is_fine_off_the_board_and_a_warning_on_it() -> None:
    assert software.library(subject_for(None)).level is Level.OK
    on_board = software.library(subject_for(None, TREES / "rk3588-bsp61"))
    assert (on_board.level, "not this board's NPU" in on_board.sentence) == (Level.WARN, True)
    wanted = software.library(subject_for(None, TREES / "rk3588-bsp61", "runtime: {simulator: true}"))
    assert wanted.level is Level.OK
    forbidden = software.library(subject_for(None, text="runtime: {simulator: false}"))
    assert forbidden.level is Level.FAIL


def test_a_configured_simulator_and_an_unreadable_library_are_told_apart(tmp_path: Path) -> None:
    simulator = build()
    subject = subject_for(None, text=f"runtime: {{library: {simulator}}}")
    assert subject.simulated
    assert software.library(subject).sentence.endswith("is the simulator")
    subject = subject_for(None, text=f"runtime: {{library: {tmp_path}}}")
    assert not subject.simulated
    assert software.library(subject).level is Level.FAIL


def test_libgomp_is_searched_where_libraries_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    subject = replace(subject_for(tmp_path / "lib.so"), root=tmp_path)
    assert software.libgomp(subject).level is Level.FAIL
    folder = tmp_path / "usr/lib/aarch64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libgomp.so.1").touch()
    assert software.libgomp(subject).level is Level.OK
    assert software.libgomp(subject_for(None)).level is Level.SKIPPED


def test_libgomp_in_a_named_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libgomp.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path}")
    assert software.find_shared_library(tmp_path / "none", "libgomp.so.1") == tmp_path / "libgomp.so.1"


def test_a_low_limit_of_open_files_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert software.open_files().level is Level.WARN
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert software.open_files().level is Level.OK


def test_a_clock_in_the_past_is_a_warning() -> None:
    assert software.clock(0.0).level is Level.WARN
    assert software.clock(1_790_000_000.0).level is Level.OK


def test_the_journal_can_be_created_in_a_writable_folder(tmp_path: Path) -> None:
    assert journal.folder(tmp_path / "deep" / "er" / "journal.db").level is Level.OK
    assert not (tmp_path / "deep").exists()


def test_a_journal_that_this_user_may_not_write_fails_or_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:
        tmp_path.chmod(0o711)
        for parent in tmp_path.parents[:2]:
            parent.chmod(0o711)
        os.seteuid(65534)
    try:
        found = journal.folder(folder / "journal.db")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert found.level in (Level.FAIL, Level.SKIPPED)
    assert found.advice


def test_little_disk_space_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((10, Level.FAIL), (100, Level.WARN), (100_000, Level.OK), (None, Level.SKIPPED)):
        monkeypatch.setattr(journal, "free_mb", lambda _, free=free: free)
        assert journal.space(tmp_path / "journal.db", 8).level is level
