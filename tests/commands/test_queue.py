"""`queue` lists, cancels and commands."""

import json
from typing import Any

import pytest

from rkllm_mqtt.commands.main import main

QUEUE = {
    "state": "busy",
    "accepting": True,
    "length": 3,
    "limit": 10_000,
    "slots": {"total": 1, "active": 1, "available": 0},
    "running": [
        {
            "id": "7f3a",
            "client": "kitchen",
            "priority": "normal",
            "attempt": 1,
            "tokens": 1234,
            "elapsed_s": 8.6,
        }
    ],
    "waiting_by_priority": {"interactive": 1, "normal": 2, "background": 0},
    "oldest_wait_s": 4.2,
    "eta_s": 31.0,
}


def test_list_shows_what_runs_and_waits(commands: Any, daemon: Any) -> None:
    daemon.retain("queue", QUEUE)
    done = commands.run("queue", "list")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        "board: online, busy, 3 waiting of at most 10,000",
        "  waiting: interactive 1, normal 2, background 0",
        "  oldest waits 4 s, all done in about 31 s",
        "  RUNNING  CLIENT   PRIORITY  ATTEMPT  TOKENS  SECONDS",
        "  7f3a     kitchen  normal          1   1,234        9",
    ]


def test_list_as_json_is_the_retained_queue(commands: Any, daemon: Any) -> None:
    daemon.retain("queue", QUEUE)
    done = commands.run("queue", "--json")
    assert json.loads(done.stdout) == {"node": "board", "status": "online", "queue": QUEUE}


@pytest.mark.parametrize("queue", ["{", "[]", json.dumps({"running": 5, "length": "x"})])
def test_a_queue_that_makes_no_sense_does_not_break_the_list(commands: Any, daemon: Any, queue: str) -> None:
    daemon.retain("queue", queue)
    done = commands.run("queue", "list")
    assert (done.returncode, done.stderr) == (0, b"")


def test_cancel_finds_the_client_of_a_running_prompt(commands: Any, daemon: Any) -> None:
    daemon.retain("queue", QUEUE)
    daemon.on_cancel = lambda client, id_: daemon.publish(
        f"client/{client}/reply/{id_}", {"id": id_, "status": "error", "finish_reason": "cancelled"}
    )
    done = commands.run("queue", "cancel", "7f3a")
    assert (done.returncode, done.stdout) == (0, b"cancelled\n")
    assert daemon.cancels == [("kitchen", "7f3a")]


def test_cancel_of_something_unknown_says_whose_it_looked_for(commands: Any, daemon: Any) -> None:
    done = commands.run("queue", "cancel", "nope", "--client", "attic")
    assert done.returncode == 1
    assert "board knows no prompt 'nope' of the client 'attic'" in done.stderr.decode()


def test_pause_carries_a_transaction_and_takes_only_its_own_answer(commands: Any, daemon: Any) -> None:
    def respond(command: str, body: dict[str, Any]) -> None:
        daemon.publish(f"admin/response/{command}", {"status": "error", "error": "x", "transaction": "other"})
        answer = {"status": "ok", "data": {"state": "paused"}, "transaction": body["transaction"]}
        daemon.publish(f"admin/response/{command}", answer)

    daemon.on_admin = respond
    done = commands.run("queue", "pause")
    assert done.returncode == 0
    assert done.stdout.startswith(b"paused")
    assert [command for command, _ in daemon.admin] == ["pause"]


def test_cancel_all_is_an_admin_command(commands: Any, daemon: Any) -> None:
    daemon.on_admin = lambda command, body: daemon.publish(
        f"admin/response/{command}", {"status": "ok", "data": {}, "transaction": body["transaction"]}
    )
    assert commands.run("queue", "cancel", "--all").returncode == 0
    assert daemon.admin[0][1]["all"] is True


def test_without_an_answer_it_says_that_admin_is_off(commands: Any, daemon: Any) -> None:
    done = commands.run("queue", "drain")
    assert done.returncode == 1
    assert "admin.enabled: true" in done.stderr.decode()


def test_an_offline_daemon_is_said_at_once(commands: Any, daemon: Any) -> None:
    daemon.retain("status", "offline")
    done = commands.run("queue", "resume")
    assert done.returncode == 69
    assert "The daemon 'board' is offline." in done.stderr.decode()


@pytest.mark.parametrize("words", [["cancel"], ["cancel", "a", "--all"], ["list", "a"], ["cancel", "event"]])
def test_words_that_make_no_sense_are_refused(words: list[str]) -> None:
    assert main(["queue", *words]) == 2
