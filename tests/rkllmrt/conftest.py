"""Libraries compiled on the spot: the recorder for each ABI group, and whatever a test writes in C."""

import ctypes
import hashlib
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import rkllmrt
from rkllmrt import simulator

HERE = Path(__file__).parent
HEADER_FOLDER = Path(simulator.__file__).parent

STATED_PLACE = b"@" * 63
# As in recorder.c; written over, so that each version does not need a compiler run of its own.

VERSION_OF = {"A": "1.1.4", "B": "1.2.0", "C": "1.2.1b1", "D": "1.2.3", "E": "1.3.0", "F": "1.3.1"}


class Recorder:
    """A recorder library and what it has written down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.native = ctypes.CDLL(str(path))
        self.number("init_status", 0)
        self.number("init_null", 0)
        self.number("run_status", 0)
        self.number("call_status", 0)
        self.number("aborts", 0)
        self.number("answered", 0)
        self.number("abort_waits", 0)
        self.number("batch", 1)
        self.script("ttf")
        self.forget()

    def script(self, events: str) -> None:
        (ctypes.c_char * 256).in_dll(self.native, "recorder_script").value = events.encode()

    def number(self, name: str, value: int) -> None:
        ctypes.c_int.in_dll(self.native, f"recorder_{name}").value = value

    @property
    def aborts(self) -> int:
        return ctypes.c_int.in_dll(self.native, "recorder_aborts").value

    @property
    def answers(self) -> list[int]:
        count = ctypes.c_int.in_dll(self.native, "recorder_answered").value
        return list((ctypes.c_int * 64).in_dll(self.native, "recorder_answers")[:count])

    @property
    def log(self) -> list[str]:
        return (ctypes.c_char * 65536).in_dll(self.native, "recorder_log").value.decode().splitlines()

    def forget(self) -> None:
        (ctypes.c_char * 65536).in_dll(self.native, "recorder_log").value = b""

    def await_pause_in_script(self) -> None:
        """Wait until the script has come to its next dot, or an abort that waits has begun."""
        ctypes.CDLL(None).sem_wait(ctypes.byref(ctypes.c_char.in_dll(self.native, "recorder_waits")))

    def go_on(self, what: str = "go") -> None:
        """Let the script go on, or with `go_abort` the abort that `abort_waits` holds."""
        ctypes.CDLL(None).sem_post(ctypes.byref(ctypes.c_char.in_dll(self.native, f"recorder_{what}")))


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile a C file (or text) and return the result; the same source and flags give the same file."""
    folder = tmp_path_factory.mktemp("compiled")

    def compile_c(source: Path | str, *flags: str, shared: bool = True) -> Path:
        text = source.read_text() if isinstance(source, Path) else source
        key = hashlib.sha256(repr((text, flags, shared)).encode()).hexdigest()[:16]
        target = folder / f"{key}.{'so' if shared else 'exe'}"
        if not target.exists():
            kind = ["-shared", "-fPIC"] if shared else []
            command = ["cc", "-x", "c", "-", *kind, *flags, f"-I{HEADER_FOLDER}", "-o", str(target)]
            subprocess.run(command, input=text, text=True, check=True)
        return target

    return compile_c


@pytest.fixture(scope="session")
def build_recorder(
    compile_c: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return the recorder library of a group; `stated` None takes the version string out of the file."""
    folder = tmp_path_factory.mktemp("recorders")

    def build(group: str, stated: str | None = "", *flags: str) -> Path:
        number = "ABCDEF".index(group) + 1
        plain = compile_c(HERE / "recorder.c", f"-DRKLLM_ABI_GROUP={number}", *flags)
        target = folder / f"{plain.stem}-{stated}.so"
        if not target.exists():
            literal = (
                f"RKLLM SDK (version: {stated or VERSION_OF[group]} | target: Linux)"
                if stated is not None
                else ""
            )
            target.write_bytes(
                plain.read_bytes().replace(STATED_PLACE, literal.encode().ljust(len(STATED_PLACE)))
            )
        return target

    return build


@pytest.fixture
def recorder(build_recorder: Callable[..., Path]) -> Callable[[str], Recorder]:
    """Return a fresh recorder of a group."""
    return lambda group: Recorder(build_recorder(group))


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.rkllm"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def open_model(model_file: Path, request: pytest.FixtureRequest) -> Callable[..., rkllmrt.Model]:
    """Load a model of a recorder; it is closed at the end of the test unless it was."""

    def open_model(recorder: Recorder, tokenizer=None, embedder=None, **params) -> rkllmrt.Model:
        library = rkllmrt.open_library(recorder.path)
        model = rkllmrt.Model(
            library,
            rkllmrt.ModelParams(model_path=model_file, **params),
            tokenizer=tokenizer,
            embedder=embedder,
        )
        model.load()

        def close() -> None:
            recorder.number("call_status", 0)
            model.close()

        request.addfinalizer(close)
        return model

    return open_model


@pytest.fixture(scope="session")
def abi_data() -> dict:
    return json.loads((HERE / "abi.json").read_text())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with a parameter `group` or `version` for each of them."""
    releases: Sequence[str] = list(json.loads((HERE / "abi.json").read_text())["releases"])
    marked: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0]
        marked |= {names} if isinstance(names, str) else set(names)
    for name, values in (("group", list(VERSION_OF)), ("version", releases)):
        if name in metafunc.fixturenames and name not in marked:
            metafunc.parametrize(name, values)
