"""The events of a run, played from a script: tokens, pauses, errors and what must never reach C."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import rkllmrt
from rkllmrt import (
    PAUSE,
    InferenceFailed,
    PerfStat,
    PromptInput,
    RunFailed,
    RunParams,
    Unsupported,
    WrongState,
)

HI = PromptInput("hi")


def collect(model, one, script: str) -> tuple[list, rkllmrt.RunOutcome]:
    one.script(script)
    seen: list = []
    outcome = model.generate(HI, RunParams(), lambda text, token: seen.append((text, token)))
    return seen, outcome


def test_tokens_come_in_order_with_their_ids(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    seen, outcome = collect(open_model(one), one, "tttf")
    assert seen == [(b"zero", 0), (b"one", 1), (b"two", 2)]
    assert (outcome.state, outcome.callbacks, outcome.tokens, outcome.aborted) == ("finished", 4, 3, False)


def test_perf_is_that_of_the_finish_event_where_there_is_one(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    _, outcome = collect(open_model(one), one, "tf")
    assert outcome.perf == (PerfStat(1.5, 7, 2.5, 9, 3.5) if group in "DEF" else None)


def test_a_null_text_is_none(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    seen, _ = collect(open_model(one), one, "tnf")
    assert seen == [(b"zero", 0), (None, 1)]


def test_a_part_of_a_character_is_counted_and_not_read(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    seen, outcome = collect(open_model(one), one, "wwtf")
    assert seen == [(b"two", 2)]
    assert (outcome.tokens, outcome.callbacks) == (3, 4)


def test_the_callback_runs_on_the_calling_thread(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    threads = set()
    open_model(one).generate(HI, RunParams(), lambda _text, _id: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_late_events_of_an_earlier_run_are_dropped_and_counted(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    collect(model, one, "tf")
    seen, outcome = collect(model, one, "utuf")
    assert seen == [(b"one", 1)]
    assert (model.late_events, outcome.callbacks) == (2, 2)


class Stop(BaseException):
    """What even `except Exception` lets through."""


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, Stop])
def test_what_a_callback_raises_ends_the_run_and_comes_out_of_generate(
    kind: type[BaseException], group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    seen = []

    def on_token(text: bytes | None, token: int) -> None:
        seen.append(token)
        raise kind("mine")

    one.script("tTtf")
    with pytest.raises(kind, match="mine"):
        model.generate(HI, RunParams(), on_token)
    assert seen == [0], "nothing more is delivered after the error"
    assert one.aborts == 1
    assert collect(model, one, "tf")[1].state == "finished"


def test_an_error_in_the_callback_wins_over_a_failed_abort(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    one.number("call_status", -1)
    with pytest.raises(ZeroDivisionError):
        model.generate(HI, RunParams(), lambda _text, _id: 1 // 0)


@pytest.mark.parametrize("answer", [3, -1, "go on"])
def test_a_callback_that_returns_nonsense_is_told_so(
    answer: object, recorder: Callable, open_model: Callable
) -> None:
    model = open_model(recorder("D"))
    with pytest.raises(rkllmrt.InvalidInput, match="returned"):
        model.generate(HI, RunParams(), lambda _text, _id: answer)


def test_abort_from_the_callback_ends_the_run_as_finished(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    one.script("tttf")
    seen = []

    def on_token(_text: bytes | None, token: int) -> None:
        seen.append(token)
        assert model.abort()

    outcome = model.generate(HI, RunParams(), on_token)
    assert (outcome.state, outcome.aborted, seen) == ("finished", True, [0])


def test_abort_from_another_thread_ends_the_run(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    model = open_model(one)
    one.script("t.ttf")

    def stop() -> None:
        one.await_pause_in_script()
        model.abort()
        one.go_on()

    thread = threading.Thread(target=stop)
    thread.start()
    outcome = model.generate(HI, RunParams())
    thread.join()
    assert (outcome.aborted, outcome.tokens) == (True, 1)


def test_abort_without_a_run_does_not_touch_the_library(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    assert not model.abort()
    assert one.aborts == 0


def test_a_run_that_is_paused_goes_on_with_resume(recorder: Callable, open_model: Callable) -> None:
    for group in "DEF":
        one = recorder(group)
        model = open_model(one)
        one.script("tttf")
        seen = []

        def on_token(_text: bytes | None, token: int, seen: list = seen) -> int:
            seen.append(token)
            return PAUSE if len(seen) == 2 else 0

        assert model.generate(HI, RunParams(), on_token).state == "paused"
        assert model.paused
        assert one.answers == [0, 1]
        with pytest.raises(WrongState, match="paused"):
            model.generate(HI)
        assert model.resume(on_token).state == "finished"
        assert not model.paused
        with pytest.raises(WrongState, match="no run is paused"):
            model.resume(on_token)


def test_a_release_that_cannot_pause_says_so_and_stops(recorder: Callable, open_model: Callable) -> None:
    for group in "ABC":
        model = open_model(recorder(group))
        with pytest.raises(Unsupported, match="cannot pause"):
            model.generate(HI, RunParams(), lambda _text, _id: PAUSE)


def test_the_error_state_is_an_inference_error(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    model = open_model(one)
    with pytest.raises(InferenceFailed) as caught:
        collect(model, one, "te")
    assert (caught.value.callbacks, caught.value.context_too_long_likely) == (2, False)


def test_a_failure_without_an_event_is_probably_a_prompt_too_long(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    one.number("run_status", -1)
    with pytest.raises(RunFailed) as caught:
        model.generate(HI)
    assert (caught.value.function, caught.value.status, caught.value.callbacks) == ("rkllm_run", -1, 0)
    assert caught.value.context_too_long_likely


def test_a_failure_right_after_an_aborted_run_says_nothing_about_the_prompt(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("D")
    model = open_model(one)
    model.generate(HI, RunParams(), lambda _text, _id: model.abort() and None)
    one.number("run_status", -1)
    with pytest.raises(RunFailed) as caught:
        model.generate(HI)
    assert caught.value.after_abort
    assert not caught.value.context_too_long_likely
    with pytest.raises(RunFailed) as again:
        model.generate(HI)
    assert again.value.context_too_long_likely, "only the run right after the abort is suspicious"


def test_a_batch_delivers_each_step_of_all_inputs(recorder: Callable, open_model: Callable) -> None:
    for group in "DEF":
        one = recorder(group)
        model = open_model(one, n_batch=3)
        one.script("ttnf")
        steps: list = []
        outcome = model.generate_batch([HI] * 3, RunParams(), steps.append)
        assert steps[0] == [(b"zero", 0), (b"one", 100), (b"two", 200)]
        assert steps[1] == [(b"one", 1), (b"two", 101), (b"three", 201)]
        assert steps[2] == [(None, -1)] * 3
        assert outcome.perf == PerfStat(1.5, 7, 2.5, 9, 3.5)


def test_a_paused_batch_goes_on_as_a_batch(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one, n_batch=2)
    assert model.generate_batch([HI] * 2, RunParams(), lambda _step: PAUSE).state == "paused"
    steps: list = []
    assert model.resume(steps.append).state == "finished"
    assert steps[0] == [(b"zero", 0), (b"one", 100)]


@pytest.mark.parametrize(
    ("items", "params"),
    [
        ([HI], RunParams()),
        ([HI] * 3, RunParams()),
        ([HI] * 2, RunParams(keep_history=True)),
        ([HI] * 2, RunParams(save_prompt_cache=Path("cache.bin"))),
        ([HI, rkllmrt.MultimodalInput(prompt="")], RunParams()),
    ],
    ids=["too few", "too many", "history", "cache", "multimodal"],
)
def test_what_is_undocumented_for_a_batch_is_refused(
    items: list, params: RunParams, recorder: Callable, open_model: Callable
) -> None:
    one = recorder("D")
    model = open_model(one, n_batch=2)
    one.forget()
    with pytest.raises(rkllmrt.InvalidInput):
        model.generate_batch(items, params, lambda _step: None)
    assert one.log == []


def test_a_single_input_for_a_model_that_reads_several_is_refused(
    recorder: Callable, open_model: Callable
) -> None:
    model = open_model(recorder("D"), n_batch=2)
    for call in (model.generate, model.logits, model.last_hidden_layer):
        with pytest.raises(rkllmrt.InvalidInput):
            call(HI)


def test_a_batch_on_a_release_without_arrays_is_refused_with_a_hint(
    recorder: Callable, open_model: Callable
) -> None:
    with pytest.raises(Unsupported) as caught:
        open_model(recorder("C"), n_batch=2)
    assert caught.value.hint


def test_callbacks_survive_a_garbage_collection_between_runs(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("E")
    model = open_model(one)
    for _ in range(3):
        gc.collect()
        assert collect(model, one, "ttf")[0] == [(b"zero", 0), (b"one", 1)]
