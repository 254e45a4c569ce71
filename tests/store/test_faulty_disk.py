"""Every call on the disk fails once, in every way: what was acknowledged is there, what was refused is not.

A real journal lives a scripted life in a child process. A library loaded before the C library makes its
n-th write, sync, truncate, removal, allocation or opening fail. `make test` takes a part of the n,
others in each test; `make faults` takes all.
"""

import contextlib
import errno
import functools
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from faulty_disk import Call, Fault, FaultyDisk
from journal_story import COMMITS, STEPS, Contents, answered, read_contents, reopen

from rkllm_mqtt.store.inspection import inspect
from rkllm_mqtt.store.reading import reader

CASES = 1_000_000 if os.environ.get("RKLLM_MQTT_EVERY_FAULT") else 6
"""So many n for each test, at most; all of them take minutes."""
FOR_EVER = 1_000_000

DEAD = "the disk is dead from then on"
WAYS = {
    "a call fails once": lambda n: Fault(first=n, last=n),
    DEAD: lambda n: Fault(first=n, last=FOR_EVER),
    "the disk is full for a while": lambda n: Fault(
        Call.WRITE | Call.ALLOCATE, first=n, last=n + 4, error=errno.ENOSPC
    ),
    "a write is cut short and its rest finds no room": lambda n: Fault(
        Call.WRITE, first=n, last=n, error=errno.ENOSPC, is_short=True
    ),
    "no sync succeeds from then on": lambda n: Fault(Call.SYNC, first=n, last=FOR_EVER),
    "no read succeeds from then on": lambda n: Fault(Call.READ, first=n, last=FOR_EVER),
    "a read fails once": lambda n: Fault(Call.READ, first=n, last=n),
    "a sync finds no room": lambda n: Fault(Call.SYNC, first=n, last=n, error=errno.ENOSPC),
}


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """A disk for each function, started once."""
    with contextlib.ExitStack() as started:

        @functools.cache
        def get(function):
            folder = tmp_path_factory.mktemp("disk")
            return started.enter_context(FaultyDisk(folder, f"journal_story:{function}"))

        yield get


@pytest.fixture
def folder(tmp_path):
    """A folder in memory where there is one: thousands of real syncs would take minutes."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="journal-", dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield made
    shutil.rmtree(made)


def possible(notes, *, died):
    """Return what the journal may hold: each acknowledged step, no refused one, an unanswered one or not.

    Args:
        notes: What the life noted.
        died: The disk took nothing any more: its last commit cannot be written over, and may be there whole.
    """
    sure, unsure = answered(notes)
    refused = [int(note.split()[1]) for note in notes if note.startswith("no") and note != "no start"]
    if died and refused:
        unsure = [number for number in refused if COMMITS[number] == COMMITS[refused[0]]]
    return [
        Contents().after_all(STEPS[number] for number in [*sure, *some])
        for length in range(len(unsure) + 1)
        for some in itertools.combinations(dict.fromkeys(unsure), length)
    ]


def check(path, notes, *, died=False):
    reopen(path)
    with reader(path) as connection:
        problems = inspect(connection, path).problems
    assert problems == (), notes
    contents = read_contents(path)
    assert contents in possible(notes, died=died), (contents, notes)


def live_through(disk, folder, way, start):
    """Live the story once for each n, and check what each life left; return how many had a refusal."""
    refused = 0
    calls = count_calls(disk, folder, way(1).kinds)
    stride = max(1, calls // CASES)
    for number in range(start % stride + 1, calls + 1, stride):
        case = folder / f"case-{number}"
        case.mkdir()
        notes, _, status = disk.run(case, way(number))
        assert status == 0, (number, notes)
        try:
            check(case / "journal.db", notes, died=way is WAYS[DEAD])
        except AssertionError as error:
            error.add_note(f"call {number} of {calls}")
            raise
        refused += any(note.startswith("no") for note in notes)
        shutil.rmtree(case)
    return refused


def count_calls(disk, folder, kinds):
    whole = folder / "whole"
    whole.mkdir()
    notes, calls, status = disk.run(whole, Fault(kinds=kinds))
    assert (status, answered(notes)) == (0, (list(range(len(STEPS))), []))
    check(whole / "journal.db", notes)
    assert calls > 30
    return calls


@pytest.mark.parametrize("way", WAYS)
def test_the_journal_goes_on_without_losing_or_keeping_the_wrong_call(disks, folder, way):
    assert live_through(disks("run_to_the_end"), folder, WAYS[way], 5 * list(WAYS).index(way))


@pytest.mark.parametrize("way", WAYS)
def test_a_kill_right_after_a_refusal_leaves_nothing_of_what_was_refused(disks, folder, way):
    """The bytes of a failed commit may be on the disk already: nobody may find them there later."""
    assert live_through(disks("run_until_refused"), folder, WAYS[way], 5 * list(WAYS).index(way) + 3)


def test_a_backup_whose_disk_fails_at_any_call_is_whole_or_absent(disks, folder):
    (folder / "life").mkdir()
    disks("run_to_the_end").run(folder / "life", Fault())
    (folder / "life" / "journal.db").rename(folder / "source.db")
    whole = read_contents(folder / "source.db")
    disk = disks("back_up_beside")
    said = []
    for number in itertools.count():
        case = folder / f"case-{number}"
        case.mkdir()
        notes, calls, status = disk.run(case, Fault(first=number, last=number))
        assert status == 0
        if notes == ["ok 0"] or (case / "copy.db").exists():
            assert read_contents(case / "copy.db") == whole
        else:
            assert notes == ["no 0"]
            # Only a removal that fails leaves something, which the next backup replaces.
            assert len(list(case.iterdir())) == 0 or number > calls - 3, list(case.iterdir())
        said += notes
        if number > calls:
            break
    assert said.count("no 0") > 10
    assert (said[0], said[-1]) == ("ok 0", "ok 0")
