"""The promise of `admin.py`: every command gets one response with its transaction, whatever it holds."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rkllm_mqtt.admin import Admin, CommandRefused, log_level, text_argument
from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.topics import Topics

WIRE = Path(__file__).parent / "wire"
BASE = "rkllm/rock5/admin/response"


async def echo(arguments):
    return {"got": sorted(arguments)}


async def refuse(arguments):
    raise CommandRefused(f"{text_argument(arguments, 'id')} is not here")


async def fail(arguments):
    raise RuntimeError("secret detail")


COMMANDS = {"echo": echo, "refuse": refuse, "fail": fail, "log_level": log_level}


def ask(name, payload):
    """Return the one response as (topic, payload)."""
    sent = []
    admin = Admin(Topics("rkllm", "rock5"), COMMANDS, sent.append)
    asyncio.run(admin.take(name, encode(payload) if isinstance(payload, dict) else payload))
    (message,) = sent
    assert (message.qos, message.retain) == (1, False)
    return message.topic, message.payload


def answer(name, payload):
    return json.loads(ask(name, payload)[1])


@pytest.fixture
def level():
    """The level of our logs, restored afterwards."""
    logger = logging.getLogger("rkllm_mqtt")
    before = logger.level
    yield lambda: logging.getLevelName(logger.level)
    logger.setLevel(before)


def test_a_command_is_carried_out_and_its_response_is_the_golden_one(level):
    topic, payload = ask("log_level", {"transaction": "t1", "level": "debug"})
    assert topic == f"{BASE}/log_level"
    assert payload == encode(json.loads((WIRE / "admin_response.json").read_bytes()))
    assert level() == "DEBUG"


def test_a_refused_command_changes_nothing_and_its_response_is_the_golden_one(level):
    before = level()
    _, payload = ask("log_level", {"transaction": "t2", "level": "content"})
    assert payload == encode(json.loads((WIRE / "admin_error.json").read_bytes()))
    assert level() == before


@pytest.mark.parametrize("transaction", ["t1", 5, 0, None, False, 1.5, [1, {"a": None}], {"a": "é"}])
def test_any_transaction_is_echoed_also_on_an_error(transaction):
    for name in ("echo", "refuse", "fail", "nonsense"):
        assert answer(name, {"transaction": transaction})["transaction"] == transaction


def test_without_a_transaction_it_is_null_and_an_empty_payload_asks_for_nothing():
    for payload in (b"", b" \n", b"{}"):
        assert answer("echo", payload) == {
            "status": "ok",
            "data": {"got": []},
            "error": None,
            "transaction": None,
        }


def test_an_unknown_command_is_answered_on_one_topic_and_the_known_ones_are_listed():
    for name in ("nonsense", "", "x" * 500, "caches"):
        topic, payload = ask(name, {"transaction": "t"})
        assert topic == f"{BASE}/unknown"
        error = json.loads(payload)["error"]
        assert "echo, refuse, fail, log_level" in error
        assert len(error) < 200


def test_a_refusal_says_why():
    assert answer("refuse", {"id": "q7"})["error"] == "q7 is not here"
    assert answer("refuse", {"id": 7})["error"] == "id is missing or not a text"


def test_a_bug_is_an_error_without_details():
    response = answer("fail", {})
    assert response["status"] == "error"
    assert "secret" not in response["error"]


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[1]",
        b'"x"',
        b"null",
        b"\xff",
        b"{} {}",
        b'{"transaction":NaN}',
        b'{"transaction":-Infinity}',
        b'{"transaction":1e999}',
        b'{"transaction":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"n":' + b"9" * 5_000 + b"}",
        b'{"a":' * 2_500,
        b'{"a":"' + b"x" * 20_000 + b'"}',
    ],
)
def test_what_is_no_small_json_object_is_refused_and_not_carried_out(payload):
    response = answer("echo", payload)
    assert (response["status"], response["data"], response["transaction"]) == ("error", {}, None)
    assert response["error"].startswith("the command ")


@given(st.binary(max_size=40) | st.text(max_size=20).map(lambda text: encode({"transaction": text})))
@example(b'{"transaction":1e400}')
def test_no_payload_raises_and_each_gets_one_response(payload):
    assert answer("echo", payload)["status"] in ("ok", "error")
