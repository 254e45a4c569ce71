"""Loading, closing and everything that is not a run."""

import array
from collections.abc import Callable
from pathlib import Path

import pytest

import rkllmrt
from rkllmrt import (
    PAUSE,
    InvalidInput,
    KvCacheFailed,
    LoadFailed,
    LoraFailed,
    NativeCallFailed,
    PromptCacheFailed,
    PromptInput,
    RunParams,
    Unsupported,
    WrongState,
)

HI = PromptInput("hi")
FLOATS = array.array("f", [0.5, 1.5, 2.5])


def test_a_model_that_does_not_load_says_where_to_look(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    one.number("init_status", -1)
    with pytest.raises(LoadFailed) as caught:
        open_model(one)
    assert (caught.value.function, caught.value.status) == ("rkllm_init", -1)
    assert "prints the reason" in caught.value.hint


def test_success_without_a_handle_is_a_failure(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    one.number("init_null", 1)
    with pytest.raises(LoadFailed, match="no handle") as caught:
        open_model(one)
    assert "NPU memory" in caught.value.hint


def test_a_model_is_loaded_once(recorder: Callable, open_model: Callable) -> None:
    model = open_model(recorder("D"))
    with pytest.raises(WrongState):
        model.load()
    model.close()
    with pytest.raises(WrongState):
        model.load()


def test_close_destroys_once_and_may_be_repeated(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    with model:
        pass
    model.close()
    assert one.log.count("destroy=1") == 1


def test_a_handle_is_gone_even_when_destroy_fails(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    one.number("call_status", -1)
    with pytest.raises(NativeCallFailed, match="rkllm_destroy answered -1"):
        model.close()
    model.close()
    assert one.log.count("destroy=1") == 1


def test_no_call_reaches_the_library_before_load_and_after_close(
    recorder: Callable, open_model: Callable, model_file: Path
) -> None:
    one = recorder("D")
    fresh = rkllmrt.Model(rkllmrt.open_library(one.path), rkllmrt.ModelParams(model_path=model_file))
    closed = open_model(one)
    closed.close()
    one.forget()
    for model in (fresh, closed):
        for call in (
            lambda model: model.generate(HI),
            lambda model: model.clear_kv_cache(),
            lambda model: model.kv_cache_size(),
            lambda model: model.raw_chat_template(),
        ):
            with pytest.raises(WrongState):
                call(model)
        assert not model.abort()
        assert not model.native_is_running()
    assert one.log == []
    assert one.aborts == 0


def test_the_kv_cache_is_cleared_with_the_arguments_of_the_release(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    one.forget()
    if group == "A":
        with pytest.raises(Unsupported):
            model.clear_kv_cache()
        return
    model.clear_kv_cache()
    model.clear_kv_cache(keep_system_prompt=True)
    assert one.log == (["clear=0", "clear=1"] if group in "BC" else ["clear=0 all", "clear=1 all"])


def test_ranges_need_a_paused_run_without_history(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one, n_batch=2)
    ranges = [(4, 9), (5, 7)]
    with pytest.raises(WrongState, match="paused"):
        model.clear_kv_cache(ranges=ranges)
    model.generate_batch([HI] * 2, RunParams(), lambda _step: PAUSE)
    model.clear_kv_cache(ranges=ranges)
    assert one.log[-1] == "clear=0 4-9 5-7"
    for wrong in ([(4, 9)], [(9, 4), (0, 1)], [(-1, 4), (0, 1)]):
        with pytest.raises(InvalidInput):
            model.clear_kv_cache(ranges=wrong)


def test_ranges_are_refused_for_a_paused_run_with_history_and_by_older_releases(
    recorder: Callable, open_model: Callable
) -> None:
    model = open_model(recorder("D"))
    model.generate(HI, RunParams(keep_history=True), lambda _text, _id: PAUSE)
    with pytest.raises(WrongState):
        model.clear_kv_cache(ranges=[(0, 1)])
    with pytest.raises(Unsupported):
        open_model(recorder("B")).clear_kv_cache(ranges=[(0, 1)])


def test_the_size_of_the_kv_cache_is_told_for_each_of_the_batch(
    recorder: Callable, open_model: Callable
) -> None:
    for group in "DEF":
        assert open_model(recorder(group), n_batch=3).kv_cache_size() == [40, 41, 42]
    with pytest.raises(Unsupported):
        open_model(recorder("C")).kv_cache_size()


def test_a_loaded_prompt_cache_is_released_before_the_next_and_at_the_end(
    group: str, recorder: Callable, open_model: Callable, tmp_path: Path
) -> None:
    one = recorder(group)
    model = open_model(one)
    one.forget()
    files = [tmp_path / "a.cache", tmp_path / "b.cache"]
    for path in files:
        path.write_bytes(b"kv")
        model.load_prompt_cache(path)
    model.close()
    assert one.log == [
        f"load_cache={files[0]}",
        "release_cache=1",
        f"load_cache={files[1]}",
        "release_cache=1",
        "destroy=1",
    ]


def test_releasing_no_prompt_cache_does_nothing(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    one.forget()
    model.release_prompt_cache()
    assert one.log == []


def test_an_absent_file_is_refused_before_the_library_sees_it(
    recorder: Callable, open_model: Callable, tmp_path: Path
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.forget()
    with pytest.raises(InvalidInput):
        model.load_prompt_cache(tmp_path / "absent.cache")
    with pytest.raises(InvalidInput):
        model.load_lora(tmp_path / "absent.rkllm", "poet")
    assert one.log == []


def test_each_failing_call_has_its_own_error(
    recorder: Callable, open_model: Callable, model_file: Path
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.number("call_status", -1)
    for kind, function, call in (
        (PromptCacheFailed, "rkllm_load_prompt_cache", lambda: model.load_prompt_cache(model_file)),
        (LoraFailed, "rkllm_load_lora", lambda: model.load_lora(model_file, "poet")),
        (KvCacheFailed, "rkllm_clear_kv_cache", lambda: model.clear_kv_cache()),
        (KvCacheFailed, "rkllm_get_kv_cache_size", lambda: model.kv_cache_size()),
        (NativeCallFailed, "rkllm_set_chat_template", lambda: model.raw_chat_template()),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert (type(caught.value), caught.value.function) == (kind, function)


def test_a_lora_that_did_not_load_cannot_be_chosen(
    recorder: Callable, open_model: Callable, model_file: Path
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.number("call_status", -1)
    with pytest.raises(LoraFailed):
        model.load_lora(model_file, "poet")
    with pytest.raises(InvalidInput):
        model.generate(HI, RunParams(lora_name="poet"))


def test_the_raw_template_is_three_empty_strings(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    one.forget()
    model.raw_chat_template()
    assert one.log == ([] if group == "A" else ["template=||"])


def test_a_template_arrives_and_is_unsupported_before_1_2_0(recorder: Callable, open_model: Callable) -> None:
    one = recorder("B")
    open_model(one).set_chat_template("system", b"prefix", "postfix")
    assert one.log[-1] == "template=system|prefix|postfix"
    with pytest.raises(Unsupported):
        open_model(recorder("A")).set_chat_template("", "", "")


def test_function_tools_arrive_and_must_be_a_json_array(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    model.set_function_tools("be kind", '[{"type": "function"}]')
    assert one.log[-1] == 'tools=be kind|[{"type": "function"}]|tool_response'
    for wrong in ("", "tools", "{}"):
        with pytest.raises(InvalidInput):
            model.set_function_tools("", wrong)
    with pytest.raises(Unsupported):
        open_model(recorder("C")).set_function_tools("", "[]")


def test_cross_attention_arrives_for_models_loaded_with_it(recorder: Callable, open_model: Callable) -> None:
    one = recorder("E")
    model = open_model(one, use_cross_attn=True)
    model.set_cross_attention(FLOATS, FLOATS, FLOATS, [7, 8, 9], 3)
    assert one.log[-1] == "cross=1.5 1.5 1.5 8 3"
    with pytest.raises(InvalidInput):
        model.set_cross_attention(FLOATS, FLOATS, FLOATS, [7], 3)
    with pytest.raises(WrongState, match="use_cross_attn"):
        open_model(recorder("D")).set_cross_attention(FLOATS, FLOATS, FLOATS, [7, 8, 9], 3)
    with pytest.raises(Unsupported):
        open_model(recorder("C")).set_cross_attention(FLOATS, FLOATS, FLOATS, [7, 8, 9], 3)
