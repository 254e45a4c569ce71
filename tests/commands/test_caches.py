"""`caches` lists, creates and deletes through the daemon's admin commands."""

import json
from typing import Any

import pytest

from rkllm_mqtt.commands.caches import listing

TOLD = {
    "files": [
        {
            "file": "0123456789abcdef-fedcba9876543210",
            "tier": "memory",
            "client": "kitchen",
            "tokens": 1500,
            "bytes": 43_000_000,
            "loads": 3,
        }
    ],
    "prefixes": [{"client": "admin", "name": "voice", "model": "qwen"}],
    "tiers": {"memory": {"mb": 43.0, "budget_mb": 1200}},
    "disk_written_today_mb": 86.5,
}


@pytest.fixture
def administered(daemon: Any) -> Any:
    """A daemon that answers each admin command with the same."""

    def respond(command: str, body: dict[str, Any]) -> None:
        data = TOLD if command == "caches" else {"name": body.get("name"), "state": "registered"}
        answer = {"status": "ok", "data": data, "transaction": body["transaction"]}
        daemon.publish(f"admin/response/{command}", answer)

    daemon.on_admin = respond
    return daemon


def test_list_shows_tiers_prefixes_and_files(commands: Any, administered: Any) -> None:
    done = commands.run("caches")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        "memory: 43.0 of 1,200 MB",
        "written on the disk today: 86.5 MB",
        "  voice  of admin, qwen",
        "  FILE                               TIER    CLIENT   TOKENS    MB  LOADS",
        "  0123456789abcdef-fedcba9876543210  memory  kitchen   1,500  43.0      3",
    ]


def test_list_as_json_is_what_the_daemon_says(commands: Any, administered: Any) -> None:
    assert json.loads(commands.run("caches", "list", "--json").stdout) == TOLD


def test_create_sends_the_system_prompt_and_the_tools(
    commands: Any, administered: Any, tmp_path: Any
) -> None:
    (tmp_path / "prompt.txt").write_text("You are the voice of a house.")
    (tmp_path / "tools.json").write_text("[]")
    files = ("--system", str(tmp_path / "prompt.txt"), "--tools", str(tmp_path / "tools.json"))
    done = commands.run("caches", "create", "voice", *files, "--model", "qwen")
    assert done.stdout.decode() == "voice: registered; it is computed and saved when the slot is idle\n"
    ((command, body),) = administered.admin
    assert command == "cache_create"
    assert body["messages"] == [{"role": "system", "content": "You are the voice of a house."}]
    assert (body["name"], body["tools"], body["model"]) == ("voice", [], "qwen")


@pytest.mark.parametrize(
    ("name", "member"), [("voice", "name"), ("0123456789abcdef-fedcba9876543210", "file")]
)
def test_delete_takes_a_name_or_a_files_hash(
    commands: Any, administered: Any, name: str, member: str
) -> None:
    assert commands.run("caches", "delete", name).returncode == 0
    assert administered.admin[0][1][member] == name


@pytest.mark.parametrize(
    "words",
    [
        ("list", "voice"),
        ("create", "voice"),
        ("create",),
        ("delete",),
        ("delete", "voice", "--model", "qwen"),
    ],
)
def test_what_does_not_fit_together_is_an_error_of_usage(commands: Any, words: tuple[str, ...]) -> None:
    assert commands.run("caches", *words).returncode == 2


def test_files_that_cannot_be_read_are_named(commands: Any, tmp_path: Any) -> None:
    done = commands.run("caches", "create", "voice", "--system", str(tmp_path / "missing.txt"))
    assert done.returncode == 1
    assert "missing.txt cannot be read" in done.stderr.decode()


@pytest.mark.parametrize("told", [{}, {"files": 5, "tiers": [], "prefixes": [3]}, {"files": [{}]}])
def test_an_answer_that_makes_no_sense_does_not_break_the_list(told: dict[str, Any]) -> None:
    assert listing(told)
