"""The merging rules of one request, without a broker."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.commands.client_exchange import Changed, Exchange, Finished, Piece, Stage, Step, Voided


def encoded(**members: Any) -> bytes:
    return json.dumps(members).encode()


def delta(seq: int, text: str, attempt: int = 1, kind: str = "text") -> bytes:
    return encoded(id="a", attempt=attempt, seq=seq, **{kind: text})


def final(text: str, **members: Any) -> bytes:
    return encoded(id="a", status="ok", text=text, thinking="", **members)


def shown(steps: list[Step]) -> str:
    """What a screen shows after these steps."""
    text = ""
    for step in steps:
        if isinstance(step, Voided):
            text = ""
        elif isinstance(step, Piece) and step.kind == "text":
            text += step.text
    return text


def test_deltas_that_come_before_accepted_are_shown_and_count() -> None:
    exchange = Exchange("a")
    assert exchange.take_delta(delta(0, "He")) == [Piece("text", "He")]
    exchange.take_event(encoded(type="accepted", position=1, queue_length=1))
    assert exchange.accepted
    assert exchange.stage is Stage.ANSWERING


def test_accepted_gives_place_length_and_time() -> None:
    exchange = Exchange("a")
    event = encoded(
        type="accepted", position=3, queue_length=7, eta_s=12, ignored=["top_k"], priority="normal"
    )
    assert exchange.take_event(event) == [Changed()]
    assert (exchange.position, exchange.queue_length, exchange.eta_s) == (3, 7, 12.0)
    assert (exchange.ignored, exchange.priority, exchange.stage) == (["top_k"], "normal", Stage.WAITING)
    exchange.take_event(encoded(type="position", position=2, eta_s=8))
    assert (exchange.position, exchange.eta_s) == (2, 8.0)


def test_a_late_position_does_not_lead_back_from_the_running_stage() -> None:
    exchange = Exchange("a")
    exchange.take_event(encoded(type="started", attempt=1))
    exchange.take_event(encoded(type="position", position=1))
    assert exchange.stage is Stage.RUNNING


def test_a_position_behind_the_start_says_that_the_answer_gave_way() -> None:
    exchange = Exchange("a")
    exchange.take_event(encoded(type="started", n=3, attempt=1))
    exchange.take_delta(delta(0, "one "))
    exchange.take_event(encoded(type="position", n=2, position=1))
    assert exchange.stage is Stage.ANSWERING
    exchange.take_event(encoded(type="position", n=4, position=2, eta_s=3))
    assert (exchange.stage, exchange.position, exchange.eta_s) == (Stage.WAITING, 2, 3.0)
    exchange.take_delta(delta(1, "two"))
    assert exchange.stage is Stage.ANSWERING


def test_a_gap_is_held_back_and_the_final_fills_it() -> None:
    exchange = Exchange("a")
    steps = exchange.take_delta(delta(0, "one ")) + exchange.take_delta(delta(2, "three"))
    assert shown(steps) == "one "
    steps += exchange.take_reply(final("one two three"))
    assert shown(steps) == "one two three"
    assert not any(isinstance(step, Voided) for step in steps)


def test_restarted_voids_deltas_from_its_seq_and_keeps_those_before() -> None:
    exchange = Exchange("a")
    steps = [step for seq, word in enumerate("abc") for step in exchange.take_delta(delta(seq, word))]
    steps += exchange.take_event(encoded(type="restarted", attempt=2, from_seq=1))
    assert shown(steps) == "a"
    assert exchange.stage is Stage.RUNNING
    steps += exchange.take_delta(delta(1, "X", attempt=2))
    assert shown(steps) == "aX"


def test_restarted_without_void_text_shows_nothing_anew() -> None:
    exchange = Exchange("a")
    exchange.take_delta(delta(0, "a"))
    steps = exchange.take_event(encoded(type="restarted", attempt=2, from_seq=1))
    assert steps == [Changed()]


def test_deltas_of_a_lower_attempt_are_ignored() -> None:
    exchange = Exchange("a")
    exchange.take_event(encoded(type="restarted", attempt=2, from_seq=0))
    assert exchange.take_delta(delta(0, "old", attempt=1)) == []
    assert exchange.take_delta(delta(0, "new", attempt=2)) == [Piece("text", "new")]


def test_a_new_attempt_whose_restarted_comes_late_ends_right() -> None:
    exchange = Exchange("a")
    steps = [step for seq, word in enumerate("abcd") for step in exchange.take_delta(delta(seq, word))]
    steps += exchange.take_delta(delta(2, "Y", attempt=2))  # seq 1 of the new attempt was lost
    steps += exchange.take_event(encoded(type="restarted", attempt=2, from_seq=1))
    assert shown(steps) == "a"
    steps += exchange.take_reply(final("aXY"))
    assert shown(steps) == "aXY"


def test_everything_after_the_final_is_ignored() -> None:
    exchange = Exchange("a")
    steps = exchange.take_reply(final("done"))
    assert isinstance(steps[-1], Finished)
    assert exchange.take_delta(delta(0, "late")) == []
    assert exchange.take_event(encoded(type="restarted", attempt=2, from_seq=0)) == []
    assert exchange.take_reply(final("other")) == []


def test_a_final_that_differs_from_the_deltas_wins() -> None:
    exchange = Exchange("a")
    steps = exchange.take_delta(delta(0, "wrong"))
    steps += exchange.take_reply(final("right"))
    assert Voided(restarted=False) in steps
    assert shown(steps) == "right"


def test_a_final_cut_to_the_senders_bytes_does_not_take_text_away() -> None:
    exchange = Exchange("a")
    steps = exchange.take_delta(delta(0, "a long answer"))
    steps += exchange.take_reply(final("a long", truncated=True))
    assert shown(steps) == "a long answer"


def test_thoughts_of_the_final_are_shown_when_no_delta_came() -> None:
    exchange = Exchange("a")
    payload = encoded(id="a", status="ok", text="42", thinking="hmm")
    assert exchange.take_reply(payload)[:2] == [Piece("thinking", "hmm"), Piece("text", "42")]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xff",
        b"{",
        b'{"seq": true, "text": "x"}',
        b'{"seq": -1, "text": "x"}',
        b'{"seq": 0, "text": 5}',
    ],
)
def test_what_makes_no_sense_is_ignored(payload: bytes) -> None:
    exchange = Exchange("a")
    assert exchange.take_delta(payload) == []
    assert exchange.take_event(payload) == []


@settings(max_examples=80, deadline=None)
@given(
    words=st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=8),
    valid=st.integers(0, 8),
    lost=st.sets(st.integers(0, 20)),
    seed=st.integers(0, 1000),
)
def test_in_any_order_and_with_any_loss_the_screen_ends_with_the_finals_text(
    words: list[str], valid: int, lost: set[int], seed: int
) -> None:
    valid = min(valid, len(words))
    first = [delta(seq, word) for seq, word in enumerate(words)]
    text = "".join(words[:valid]) + "".join(word[::-1] for word in words[valid:])
    second = [delta(seq, words[seq][::-1], attempt=2) for seq in range(valid, len(words))]
    deltas = [payload for number, payload in enumerate(first + second) if number not in lost]
    messages = [("delta", payload) for payload in deltas]
    messages.append(("event", encoded(type="restarted", attempt=2, from_seq=valid)))
    messages.append(("event", encoded(type="accepted", position=1)))
    random.Random(seed).shuffle(messages)
    exchange = Exchange("a")
    steps: list[Step] = []
    for topic, payload in messages:
        steps += exchange.take_delta(payload) if topic == "delta" else exchange.take_event(payload)
    steps += exchange.take_reply(final(text))
    assert shown(steps) == text
    assert exchange.stage is Stage.DONE
