"""A prompt for an idle slot is computed while the journal commits it: nothing is told before that."""

import contextlib
import json
import os
import select
import sqlite3
import uuid

import pytest
from live_client import PATIENCE_S


@contextlib.contextmanager
def write_lock(daemon):
    """Hold the journal's write lock, as a backup does: no commit can end."""
    shell = sqlite3.connect(daemon.folder / "journal.db", isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    yield
    shell.close()


class Runs:
    """The library's own word on its runs, as they end."""

    def __init__(self, path):
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.environment = {"RKLLM_SIM_TRACE": str(path)}

    def wait_for_one(self):
        assert select.select([self._pipe], [], [], PATIENCE_S)[0], "the library has run nothing"
        return self.count()

    def count(self):
        """Return how many have ended since the last look."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self._pipe, 65_536).count(b"\n")
        return 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("trace") / "runs")
    yield runs
    os.close(runs._pipe)


@pytest.fixture(scope="module")
def traced(online, runs):
    """A daemon whose library tells of its runs; each test leaves it idle, with nothing untold."""
    with online("traced", runs.environment) as daemon:
        yield daemon


@pytest.fixture
def here(traced, connect):
    """A client and a mailbox of its own on that daemon."""
    box = traced.client(f"c-{uuid.uuid4().hex[:12]}")
    return connect(f"{box}/#"), box


def test_the_library_works_while_the_commit_is_under_way_and_the_answer_waits_for_it(traced, here, runs):
    watcher, box = here
    with write_lock(traced):
        watcher.publish_soon(f"{box}/request/q1", {"prompt": "say: hello", "stream": True})
        assert runs.wait_for_one() == 1
        assert not [m for m in watcher.messages if m.topic.startswith(box) and "/request" not in m.topic]
    assert watcher.reply(f"{box}/reply/q1").json["text"] == "hello"
    events = [m.json["type"] for m in watcher.on(f"{box}/event/q1")]
    assert events == ["accepted", "started"]
    assert runs.count() == 0


def test_what_could_not_be_stored_leaves_no_answer_and_the_slot_free(traced, here, runs):
    watcher, box = here
    with write_lock(traced):  # for longer than the writer waits for a lock
        watcher.publish_soon(f"{box}/request/q1", {"prompt": "say: hello", "stream": True})
        refused = watcher.reply(f"{box}/reply/q1").json
    assert refused["error"]["code"] == "internal"
    assert not watcher.on(f"{box}/delta/q1")
    watcher.publish(f"{box}/request/q2", {"prompt": "say: again"})
    assert watcher.reply(f"{box}/reply/q2").json["text"] == "again"
    watcher.publish(f"{box}/request/q1", {"prompt": "say: hello", "stream": True})
    watcher.wait(lambda m: m.topic == f"{box}/reply/q1" and json.loads(m.payload)["status"] == "ok")
    runs.count()


def test_a_finished_request_is_never_computed_again(here, runs):
    watcher, box = here
    for _ in range(3):
        watcher.publish(f"{box}/request/q1", {"prompt": "say: once"})
        watcher.wait_many(lambda m: m.topic == f"{box}/reply/q1", 1)
    watcher.wait_many(lambda m: m.topic == f"{box}/reply/q1", 3)
    assert runs.count() == 1
