"""One thing at a time on one handle, and the callbacks that ask instead of tell."""

import array
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rkllmrt import Busy, PromptInput, RunParams, Unsupported

HI = PromptInput("hi")


@contextmanager
def running(one, model) -> Iterator[None]:
    """A run in another thread that stands still inside the library."""
    one.script("t.tf")
    thread = threading.Thread(target=model.generate, args=(HI, RunParams()))
    thread.start()
    one.await_pause_in_script()
    try:
        yield
    finally:
        one.go_on()
        thread.join()


def test_a_second_call_during_a_run_is_refused_at_once(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    with running(one, model):
        assert model.running
        assert model.native_is_running()
        one.forget()
        for call in (
            lambda: model.clear_kv_cache(),
            lambda: model.kv_cache_size(),
            lambda: model.raw_chat_template(),
            lambda: model.close(),
            lambda: model.generate(HI),
        ):
            with pytest.raises(Busy, match="while rkllm_run is in progress"):
                call()
        assert one.log == []
    assert not model.running
    model.close()


def test_from_inside_a_callback_only_abort_is_allowed(recorder: Callable, open_model: Callable) -> None:
    model = open_model(recorder("D"))
    with pytest.raises(Busy):
        model.generate(HI, RunParams(), lambda _text, _id: model.kv_cache_size() and None)


def test_an_abort_is_repeated_at_the_next_token_in_case_the_first_came_too_early(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.script("ttf")
    seen = []

    def on_token(_text: bytes | None, token: int) -> None:
        seen.append(token)
        model._handle._run.abort_wanted = True  # as `abort` leaves it when the library had not begun yet

    assert model.generate(HI, RunParams(), on_token).aborted
    assert one.aborts == 1


def test_an_abort_between_finish_and_return_does_not_reach_the_library(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.script("tf.")
    thread = threading.Thread(target=model.generate, args=(HI, RunParams()))
    thread.start()
    one.await_pause_in_script()
    stopped = model.abort()
    one.go_on()
    thread.join()
    assert (stopped, one.aborts) == (False, 0)


def test_a_run_does_not_return_while_an_abort_meant_for_it_is_under_way(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.number("abort_waits", 1)
    one.script("t.tf")
    run = threading.Thread(target=model.generate, args=(HI, RunParams()))
    run.start()
    one.await_pause_in_script()
    aborting = threading.Thread(target=model.abort)
    aborting.start()
    one.await_pause_in_script()
    one.go_on()
    run.join(timeout=0.2)
    still_running = run.is_alive()
    one.go_on("go_abort")
    aborting.join()
    run.join()
    assert still_running, "the abort could have hit the next run"


def test_a_tokenizer_of_ours_is_asked_with_bytes_and_answers_ids(
    recorder: Callable, open_model: Callable
) -> None:
    asked = []

    def tokenizer(text: bytes) -> list[int]:
        asked.append(text)
        return [3, 4]

    for group in "EF":
        one = recorder(group)
        model = open_model(one, tokenizer=tokenizer)
        assert {"tokenizer=1", "embedder=0"} <= set(one.log)
        one.script("kf")
        model.generate(HI)
        assert "tokens=2:3,4" in one.log
    assert asked == ["Zürich".encode()] * 2


def test_an_embedder_of_ours_fills_exactly_the_room_of_the_model(
    recorder: Callable, open_model: Callable
) -> None:
    rows = array.array("f", [1, 2, 3, 4, 5, 6])
    asked = []

    def embedder(ids: list[int]) -> array.array:
        asked.append(ids)
        return rows

    one = recorder("F")
    model = open_model(one, embedder=embedder)
    one.script("bf")
    model.generate(HI)
    assert "rows=0:1,6" in one.log
    assert asked == [[11, 12]]


@pytest.mark.parametrize(
    ("script", "ours", "answer"),
    [
        ("kf", {"tokenizer": lambda _text: [0] * 5}, "tokens=-1:"),
        ("kf", {"tokenizer": lambda _text: [2**40]}, "tokens=-1:"),
        ("kf", {"tokenizer": lambda _text: 1 // 0}, "tokens=-1:"),
        ("bf", {"embedder": lambda _ids: array.array("f", [1])}, "rows=-1:"),
        ("bf", {"embedder": lambda _ids: 1 // 0}, "rows=-1:"),
    ],
    ids=["too many tokens", "no int32", "tokenizer raises", "too short", "embedder raises"],
)
def test_an_answer_that_does_not_fit_is_an_error_for_both_sides(
    script: str, ours: dict, answer: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder("E")
    model = open_model(one, **ours)
    one.script(script)
    with pytest.raises((ValueError, ZeroDivisionError, TypeError)):
        model.generate(HI)
    assert any(line.startswith(answer) for line in one.log)


def test_callbacks_that_ask_are_refused_before_1_3_0(recorder: Callable, open_model: Callable) -> None:
    for ours in ({"tokenizer": lambda _text: []}, {"embedder": lambda _ids: b""}):
        with pytest.raises(Unsupported):
            open_model(recorder("D"), **ours)
