"""Play a script against a simulated library in a child process and read what came back, event by event."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rkllmrt import simulator

FOLDER = Path(__file__).parent
Play = Callable[..., "Played"]


@dataclass(frozen=True)
class Played:
    """What a script left behind: exit status (negative: signal), events in order, stdout and stderr."""

    status: int
    events: list[dict]
    log: str
    errors: str

    def of(self, kind: str) -> list[dict]:
        return [event for event in self.events if event["event"] == kind]

    def runs(self) -> list[list[dict]]:
        """Events of each rkllm_run, its return included."""
        inside = {"normal", "waiting", "finish", "error", "hidden", "logits", "aborting", "run"}
        runs: list[list[dict]] = [[]]
        for event in self.events:
            if event["event"] in inside:
                runs[-1].append(event)
            if event["event"] == "run":
                runs.append([])
        return runs[:-1]

    def texts(self, column: int = 0) -> list[str]:
        """The text of each run."""
        return [text_of(run, column) for run in self.runs()]

    def perfs(self) -> list[dict]:
        return self.of("finish")


def text_of(events: list[dict], column: int = 0) -> str:
    pieces = [e["text"] for e in events if e["event"] == "normal" and e["column"] == column and e["text"]]
    return bytes.fromhex("".join(pieces)).decode("utf-8", errors="surrogateescape")


@pytest.fixture(scope="session")
def compile_driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return the driver of an ABI group, compiled against the header of that group."""
    folder = tmp_path_factory.mktemp("driver")

    def compiled(group: int) -> Path:
        target = folder / f"driver-{group}"
        if not target.exists():
            source = [str(FOLDER / "driver.c"), "-I", str(simulator.SOURCES), "-pthread", "-ldl"]
            flags = [
                "-std=gnu11",
                "-D_GNU_SOURCE",
                f"-DRKLLM_ABI_GROUP={group}",
                "-Wall",
                "-Wextra",
                "-Werror",
            ]
            subprocess.run(["cc", *flags, *source, "-o", str(target)], check=True)
        return target

    return compiled


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a model file: instant, plus the given lines."""

    def written(lines: str = "") -> Path:
        path = tmp_path / "test.sim"
        body = "\n".join(line.strip() for line in lines.splitlines())
        path.write_text(f"rkllm-simulator 1\nprofile: instant\n{body}\n", encoding="utf-8")
        return path

    return written


@pytest.fixture
def play(compile_driver: Callable[[int], Path], model: Callable[[str], Path], tmp_path: Path) -> Play:
    """Return `play(*words, lines="", version="1.3.1", path=None, **environment)`.

    The process works in the folder `work` of tmp_path; the model file lies beside that folder.
    """
    (tmp_path / "work").mkdir()

    def played(
        *words: object,
        lines: str = "",
        version: str = "1.3.1",
        path: Path | None = None,
        **environment: object,
    ) -> Played:
        library = simulator.build(version)
        driver = compile_driver(simulator.VERSIONS[version])
        command = [str(driver), str(library), str(path or model(lines)), *map(str, words)]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("RK")}
        return _run(
            command, clean | {key: str(value) for key, value in environment.items()}, tmp_path / "work"
        )

    return played


def _run(command: list[str], environment: dict[str, str], folder: Path) -> Played:
    """Run with a pipe for events; a library that hangs is killed after a while."""
    reader, writer = os.pipe()
    child = subprocess.Popen(
        command,
        pass_fds=[writer],
        env=environment | {"EVENTS_FD": str(writer)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    os.close(writer)
    lines: list[str] = []
    with os.fdopen(reader, encoding="utf-8") as events:
        collector = threading.Thread(target=lambda: lines.extend(events))
        collector.start()
        try:
            log, errors = child.communicate(timeout=float(environment.get("SILENT_AFTER_S", "60")))
        except subprocess.TimeoutExpired:
            child.kill()
            log, errors = child.communicate()
        collector.join()
    return Played(child.returncode, [json.loads(line) for line in lines], log, errors)
