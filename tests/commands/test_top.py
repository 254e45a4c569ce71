"""`top`: what it knows, what it draws, and how it behaves in a terminal."""

import io
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rkllm_mqtt.commands.client_connection import Message
from rkllm_mqtt.commands.top_drawing import chart
from rkllm_mqtt.commands.top_screen import screen
from rkllm_mqtt.commands.top_state import STALE_S, TopState

INFO = {
    "version": "0.1.0",
    "runtime": {"version": "1.2.3", "driver": "0.9.8", "platform": "rk3588", "simulated": True},
    "models": [{"id": "qwen2.5-1.5b", "context_tokens": 4096, "loaded": True}],
}
QUEUE = {
    "state": "busy",
    "accepting": True,
    "length": 17,
    "limit": 10_000,
    "running": [
        {
            "id": "7f3a",
            "client": "kitchen",
            "priority": "normal",
            "attempt": 2,
            "tokens": 123,
            "elapsed_s": 8.0,
        }
    ],
    "waiting_by_priority": {"interactive": 1, "normal": 12, "background": 4},
    "oldest_wait_s": 14.2,
    "eta_s": 93,
}
HEALTH = {
    "at": 1000.0,
    "status": "degraded",
    "reasons": [{"code": "driver_old", "message": "the NPU driver is 0.9.6", "hint": "Upgrade the kernel."}],
    "worker": {"pid": 7, "restarts": 1, "uptime_s": 3700},
    "npu": {"load_percent": [65, 42, 3], "frequency_mhz": 1000, "celsius": 61},
    "disk_free_mb": 12_011,
}
STATS = {
    "jobs_succeeded_total": 1234,
    "jobs_failed_total": 2,
    "tokens_generated_total": 98_234,
    "ttft_ms_last": 310.0,
    "ttft_ms_p50": 312.0,
    "ttft_ms_p95": 1250.0,
    "tokens_per_s_last": 15.1,
    "slot_busy_percent": 83,
    "prefix_hit_percent": 87.4,
    "prefix_saved_s_total": 7_500.0,
    "uptime_s": 372_000,
}


def filled(**parts: Any) -> TopState:
    state = TopState("rkllm", "board", "broker:1883", "5", status="online")
    whole = {"info": INFO, "queue": QUEUE, "health": HEALTH, "stats": STATS} | parts
    for part, members in whole.items():
        state.take(Message(f"rkllm/board/{part}", json.dumps(members).encode(), retained=False), now=50.0)
    return state


def drawn(state: TopState, now: float = 51.0, width: int = 80, height: int = 24) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    console.print(screen(state, now, width, height), end="")
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    lines = text.splitlines()
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width
    return text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
def test_everything_that_matters_is_on_the_screen(width: int, height: int) -> None:
    text = drawn(filled(), width=width, height=height)
    expected = (
        "board|● online|SIMULATED|qwen2.5-1.5b|busy|kitchen|attempt 2|123 tokens|9.0 s|interactive|core 0|"
        "65 %|1,000 MHz|61 °C|1 restart|15.1|1.25|1,234 done|2 failed|degraded|the NPU driver is 0.9.6|"
        "Upgrade the kernel."
    )
    for words in expected.split("|"):
        assert words in text


def test_what_the_cache_has_saved_is_on_a_screen_with_room_for_it() -> None:
    assert "87 % of prompts reused: 2 h 5 min saved" in drawn(filled(), width=200, height=60)
    assert "reused" not in drawn(filled(stats=STATS | {"prefix_hit_percent": None}), width=200, height=60)


@pytest.mark.parametrize(("width", "height"), [(60, 20), (40, 10), (20, 5)])
def test_a_small_window_shows_less_but_never_more_than_fits(width: int, height: int) -> None:
    assert drawn(filled(), width=width, height=height).strip()


def test_what_is_absent_leaves_the_screen_whole() -> None:
    text = drawn(TopState("rkllm", "board", "broker:1883", "5"))
    assert "No daemon has shown itself as rkllm/board" in text


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats(0, 1e9) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*QUEUE, *HEALTH, *STATS, *INFO, "load_percent", "p50"]), inner, max_size=6
        ),
        max_leaves=12,
    )
)
def test_no_retained_message_however_wrong_breaks_the_screen(members: Any) -> None:
    state = filled()
    for part in ("info", "queue", "health", "stats"):
        state.take(Message(f"rkllm/board/{part}", json.dumps(members).encode(), retained=True), now=50.0)
    drawn(state)
    console = Console(width=80, height=24, file=io.StringIO(), force_terminal=True)
    console.print(screen(state, 51.0, 80, 24))


def test_a_name_cannot_smuggle_escape_sequences() -> None:
    running = [QUEUE["running"][0] | {"client": "\x1b]0;evil\x07"}]
    assert "\x1b" not in drawn(filled(queue=QUEUE | {"running": running}))


def test_an_offline_daemon_is_said_plainly() -> None:
    state = filled()
    state.take(Message("rkllm/board/status", b"offline", retained=False), now=51.0)
    assert "The daemon is offline. What you see is what it said last." in drawn(state)


def test_a_health_that_is_too_old_means_dead() -> None:
    state = filled()
    assert not state.is_stale(50.0 + STALE_S - 1)
    assert state.is_stale(50.0 + STALE_S + 1)
    assert "it probably died" in drawn(state, now=50.0 + STALE_S + 1)


def test_a_stored_health_is_judged_by_its_own_time_until_a_fresh_one_comes() -> None:
    state = TopState("rkllm", "board", "broker:1883", status="online")
    stored = Message("rkllm/board/health", json.dumps(HEALTH).encode(), retained=True)
    state.take(stored, now=50.0)
    assert not state.is_stale(50.0, wall=1000.0 + STALE_S - 1)
    assert state.is_stale(50.0, wall=1000.0 + STALE_S + 1)
    state.take(Message(stored.topic, stored.payload, retained=False), now=50.0)
    assert not state.is_stale(51.0, wall=1e9)  # the clocks differ; it lives all the same


def test_a_lost_broker_is_said_and_the_clock_stands_still() -> None:
    state = filled()
    state.broker_lost = "Connection refused"
    text = drawn(state, now=500.0)
    assert "The broker is away (Connection refused)" in text
    assert "8.0 s" in text


def test_the_speed_is_what_was_made_between_two_messages() -> None:
    state = filled()
    later = QUEUE | {"running": [QUEUE["running"][0] | {"tokens": 153, "elapsed_s": 10.0}]}
    state.take(Message("rkllm/board/queue", json.dumps(later).encode(), retained=False), now=52.0)
    assert state.rate == 15.0
    state.sample()
    assert list(state.rates) == [15.0]
    state.status = "offline"
    state.sample()
    assert list(state.rates) == [15.0, 0.0]


def test_an_answer_that_goes_on_does_not_count_again_what_it_had() -> None:
    state = filled()
    for members in ({"tokens": 153, "elapsed_s": 10.0}, None, {"tokens": 160, "elapsed_s": 0.5}):
        running = [] if members is None else [QUEUE["running"][0] | members]
        message = json.dumps(QUEUE | {"running": running}).encode()
        state.take(Message("rkllm/board/queue", message, retained=False), now=52.0)
    assert state.rate == 14.0


def test_the_chart_puts_the_newest_at_the_right_and_keeps_small_values_visible() -> None:
    assert chart([0, 4, 8], 5, 1, 8) == ["   ▄█"]
    assert chart([0.001, 100], 2, 2, 100) == [" █", "▁█"]
    assert chart([], 3, 1, 0) == ["   "]


def retain_all(daemon: Any) -> None:
    for part, members in (("info", INFO), ("queue", QUEUE), ("stats", STATS)):
        daemon.retain(part, members)
    daemon.retain("health", HEALTH | {"at": time.time()})


def test_once_prints_one_frame(commands: Any, daemon: Any) -> None:
    retain_all(daemon)
    done = commands.run("top", "--once")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "● online" in text
    assert "kitchen" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 24


def test_json_is_one_document_with_the_retained_state(commands: Any, daemon: Any) -> None:
    retain_all(daemon)
    document = json.loads(commands.run("top", "--json").stdout)
    assert (document["node"], document["status"], document["stale"]) == ("board", "online", False)
    assert document["queue"] == QUEUE


def test_it_follows_the_daemon_and_q_gives_the_terminal_back(commands: Any, daemon: Any) -> None:
    retain_all(daemon)
    terminal = commands.in_terminal("top", columns=120, rows=40)
    terminal.wait_for("7f3a")
    daemon.retain("queue", QUEUE | {"state": "paused", "running": []})
    terminal.wait_for("nothing runs")
    daemon.retain("status", "offline")
    terminal.wait_for("The daemon is offline")
    terminal.send(b"q")
    assert terminal.wait() == 0
    assert b"\x1b[?1049h" in terminal.output
    assert terminal.output.rindex(b"\x1b[?1049l") > terminal.output.rindex(b"offline")
    assert b"\x1b[?25h" in terminal.output  # the cursor is back


def test_it_survives_a_broker_that_restarts(
    brokers: Any, base: str, commands: Any, responder_type: Any
) -> None:
    commands.port = brokers.start("allow_anonymous true\n")
    first = responder_type(commands.port, base)
    retain_all(first)
    terminal = commands.in_terminal("top")
    terminal.wait_for("kitchen")
    first.close()
    brokers.stop_last()
    terminal.wait_for("The broker is away")
    brokers.start("allow_anonymous true\n", commands.port)
    second = responder_type(commands.port, base)
    second.retain("queue", QUEUE | {"state": "draining"})
    terminal.wait_for("draining")
    terminal.interrupt()
    assert terminal.wait() == 0
    second.close()
