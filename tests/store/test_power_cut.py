"""The power fails between any two calls on the disk: the journal opens and holds what was acknowledged.

A real journal lives a scripted life once, and each of its calls is written down. From that follows what the
disk holds at each moment: all that was written (a kill), nothing but what was synced, or any part of what was
not. `make test` takes every eleventh moment, `make faults` all.
"""

import os
import shutil
import tempfile
from pathlib import Path
from random import Random

import pytest
from faulty_disk import Fault, FaultyDisk, PowerCut, read_trace
from journal_story import STEPS, Contents, read_contents, reopen

from rkllm_mqtt.store.errors import StoreCorrupt
from rkllm_mqtt.store.inspection import inspect
from rkllm_mqtt.store.reading import reader

STRIDE = 1 if os.environ.get("RKLLM_MQTT_EVERY_FAULT") else 11
PREFIXES = [Contents().after_all(STEPS[:length]) for length in range(len(STEPS) + 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    memory = Path("/dev/shm")
    usual = tmp_path_factory.mktemp("power")
    made = Path(tempfile.mkdtemp(prefix="journal-", dir=memory if os.access(memory, os.W_OK) else usual))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def records(folder):
    """All calls of a life without faults, and between them what was asked and acknowledged."""
    case = folder / "life"
    case.mkdir()
    with FaultyDisk(folder, "journal_story:run_to_the_end") as disk:
        notes, _, status = disk.run(case, Fault(), trace=folder / "trace")
    assert (status, len(notes)) == (0, 2 * len(STEPS))
    return list(read_trace(folder / "trace"))


class Restored:
    """Opens what a disk holds and says how many steps of the story are in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[int, int] = {}

    def steps(self, files: dict[str, bytes]) -> int:
        """Return how many steps were carried out; every other content is a failure."""
        key = hash(tuple(sorted(files.items())))
        if key not in self._known:
            case = self._folder / "restored"
            case.mkdir()
            for name, content in files.items():
                if not name.endswith(("-shm", ".lock", ".ballast")):
                    (case / name).write_bytes(content)
            try:
                self._known[key] = _steps(case / "journal.db")
            finally:
                shutil.rmtree(case)
        return self._known[key]


def _steps(path: Path) -> int:
    reopen(path)
    with reader(path) as connection:
        assert inspect(connection, path).problems == ()
    contents = read_contents(path)
    # The newest: a step that changes nothing is there as soon as the one before it.
    return max(length for length, prefix in enumerate(PREFIXES) if prefix == contents)


def moments(records):
    """Yield the disk after each call, with the number of steps acknowledged and of those asked for."""
    disk, acknowledged, asked = PowerCut(), 0, 0
    for record in records:
        if record.kind == "N":
            acknowledged += record.name.startswith("ok")
            asked += record.name.startswith("ask")
            continue
        disk.apply(record)
        yield disk, acknowledged, asked


@pytest.mark.parametrize("left", ["everything", "synced", "some"])
def test_whatever_the_disk_still_holds_every_acknowledged_step_is_there(folder, records, left):
    restored, random, seen = Restored(folder), Random(left), set()
    for number, (disk, acknowledged, asked) in enumerate(moments(records)):
        if left != "synced" and number % STRIDE:
            continue
        files = disk.some(random) if left == "some" else getattr(disk, left)()
        steps = restored.steps(files)
        assert acknowledged <= steps, (number, "lost")
        # Steps that change nothing are there as soon as the one before.
        assert PREFIXES[steps] in PREFIXES[: asked + 1], (number, "from the future")
        seen.add(steps)
    assert len(seen) > 8


def test_a_sync_that_lies_loses_the_newest_steps_at_most_and_never_their_order(folder, records):
    """A drive that claims to have written: until the file's next sync a power cut takes what it claimed."""
    restored, lost = Restored(folder), 0
    syncs = [number for number, record in enumerate(records) if record.kind == "S"]
    for lie in syncs:
        disk, acknowledged = PowerCut(), 0
        for number, record in enumerate(records):
            if number > lie and record.kind == "S":
                lost += _after_lie(restored, disk, acknowledged)
                if record.name == records[lie].name:
                    break
            if record.kind == "N":
                acknowledged += record.name.startswith("ok")
            else:
                disk.apply(record, lie=number == lie)
    assert lost > 3


def _after_lie(restored: Restored, disk: PowerCut, acknowledged: int) -> bool:
    """Open what is left; say whether acknowledged steps are gone, which nobody can help."""
    try:
        return restored.steps(disk.synced()) < acknowledged
    except StoreCorrupt:
        return True
