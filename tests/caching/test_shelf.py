"""The promise of `caching/shelf.py`: whole files within a budget in our folder, known after restarts."""

import os

import pytest

from rkllm_mqtt.caching.shelf import Shelf
from rkllm_mqtt.core.prefix import Chain


def chain(text):
    return Chain.of(text, "model")


@pytest.fixture
def shelf(tmp_path):
    made = Shelf("memory", tmp_path / "caches", 1000)
    made.prepare()
    return made


def write(shelf, text, size=100, owner=""):
    """Write a file as a run of the library does, and take it."""
    shelf.path_of(chain(text)).write_bytes(b"k" * size)
    return shelf.add(chain(text), size, len(text) // 4, owner)


def again(shelf):
    """Return what another process finds."""
    found = Shelf(shelf.tier, shelf.folder, shelf.budget_bytes)
    found.open()
    return found


def names(shelf):
    return {file.path.name for file in shelf}


def test_the_file_with_the_longest_beginning_is_found(shelf):
    write(shelf, "word " * 100)
    longer = write(shelf, "word " * 200)
    file, chars = shelf.best(chain("word " * 300))
    assert file is longer
    assert chars == 896
    assert shelf.best(chain("another " * 300)) is None
    assert shelf.find(chain("word " * 200)) is longer


def test_files_are_found_again_after_a_restart_with_what_they_hold(shelf):
    kept = write(shelf, "word " * 100, owner="app")
    (found,) = again(shelf)
    assert (found.path, found.size, found.owner, found.held) == (kept.path, 100, "app", kept.held)


def test_nothing_of_a_sender_is_in_a_name_or_a_note_but_the_clients_name(shelf):
    write(shelf, "my secret is 1234 " * 20)
    for path in shelf.folder.iterdir():
        assert "secret" not in path.name
        assert b"secret" not in path.read_bytes()


@pytest.mark.parametrize(
    "damage", ["shorter", "no note", "broken note", "note of another", "link", "left aside"]
)
def test_what_is_not_whole_is_removed_at_the_start(shelf, damage, tmp_path):
    file = write(shelf, "word " * 100)
    note = file.path.with_suffix(".json")
    if damage == "shorter":
        file.path.write_bytes(b"k")
    elif damage == "no note":
        note.unlink()
    elif damage == "broken note":
        note.write_text("{")
    elif damage == "note of another":
        note.write_text(note.read_text().replace(chain("word " * 100).name, "0" * 16))
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(b"k" * 100)
        file.path.unlink()
        file.path.symlink_to(tmp_path / "elsewhere")
    else:
        file.path.unlink()
        file.path.with_name(file.path.name + ".part").write_bytes(b"k" * 100)
    assert len(again(shelf)) == 0
    assert list(shelf.folder.iterdir()) == []


def test_a_file_whose_load_never_ended_is_removed_at_the_start(shelf):
    good, bad = write(shelf, "word " * 100), write(shelf, "other " * 100)
    shelf.begin_load(good)
    shelf.end_load(good)
    shelf.begin_load(bad)
    assert names(again(shelf)) == {good.path.name}


def test_the_least_used_go_first_and_none_that_is_being_loaded(shelf):
    files = [write(shelf, f"{number} " * 100, 300) for number in range(3)]
    for at, file in enumerate(files):
        file.used_at = at
    shelf.begin_load(files[1])
    files[1].used_at = 0.5
    assert shelf.make_room(300)
    assert names(shelf) == {files[1].path.name, files[2].path.name}
    assert shelf.make_room(600)
    assert names(shelf) == {files[1].path.name}
    assert not shelf.make_room(800)
    assert not shelf.make_room(2000)
    assert files[1].path.exists()


def test_the_folder_is_for_us_alone(shelf):
    assert shelf.folder.stat().st_mode & 0o777 == 0o700
    shelf.folder.chmod(0o777)
    again(shelf)
    assert shelf.folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_somebody_else_has_put_there_is_not_used(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PermissionError):
        Shelf("memory", tmp_path / "link", 1000).open()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError):
        Shelf("memory", tmp_path / "pipe", 1000).open()


def test_a_file_that_is_gone_can_be_removed(shelf):
    file = write(shelf, "word " * 100)
    file.path.unlink()
    shelf.remove(file)
    assert len(shelf) == 0
    assert shelf.size == 0


def test_a_note_that_cannot_be_written_leaves_no_file(shelf):
    shelf.path_of(chain("word " * 100)).with_suffix(".json").mkdir()
    assert write(shelf, "word " * 100) is None
    assert not shelf.path_of(chain("word " * 100)).exists()


def test_there_are_never_more_than_64_files(shelf):
    for number in range(70):
        assert shelf.make_room(10)
        write(shelf, f"{number} " * 100, 10)
    assert len(shelf) == 64
    assert len(list(shelf.folder.glob("*.kv"))) == 64
