"""Parameters arrive at the right offsets of every layout, as a C program reads them."""

from collections.abc import Callable
from pathlib import Path

import pytest

import rkllmrt
from rkllmrt import InvalidInput, ModelParams, PromptInput, RunParams, Sampling, Unsupported

EVERY_GROUP = {
    "max_context_len": 4096,
    "max_new_tokens": 300,
    "top_k": 7,
    "top_p": 0.25,
    "temperature": 0.5,
    "repeat_penalty": 1.25,
    "frequency_penalty": 0.125,
    "presence_penalty": 0.0625,
    "mirostat": 2,
    "mirostat_tau": 3.5,
    "mirostat_eta": 0.75,
    "skip_special_token": False,
    "base_domain_id": 1,
}
SINCE_B = {"n_keep": 21, "embed_flash": False, "enabled_cpus_num": 3, "enabled_cpus_mask": 0x70}
SINCE_D = {"n_batch": 2, "use_cross_attn": True}
UP_TO_D = {"img_start": "<a>", "img_end": "<b>", "img_content": "<c>"}
SINCE_E = {"ignore_eos_token": True}


def params_of(group: str) -> dict[str, object]:
    params: dict[str, object] = dict(EVERY_GROUP)
    params |= SINCE_B if group != "A" else {}
    params |= SINCE_D if group in "DEF" else {}
    params |= SINCE_E if group in "EF" else UP_TO_D
    return params


def written(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else f"{value}"


def test_every_parameter_arrives_in_its_field(
    group: str, recorder: Callable, open_model: Callable, model_file: Path
) -> None:
    params = params_of(group)
    one = recorder(group)
    open_model(one, **params)
    expected = {f"{name}={written(value)}" for name, value in params.items()}
    assert expected | {f"model_path={model_file}", "is_async=0"} <= set(one.log)


def test_what_is_left_open_keeps_the_default_of_the_library(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    open_model(one)
    expected = {"max_context_len=512", "max_new_tokens=-1", "top_k=40", "top_p=0.9", "temperature=0.8"}
    expected |= {
        "repeat_penalty=1.1",
        "skip_special_token=1",
        "base_domain_id=0",
        "is_async=0",
        "reserved=a5",
    }
    expected |= {"img_start=", "img_end=", "img_content="} if group in "ABCD" else {"ignore_eos_token=0"}
    assert expected <= set(one.log)


def test_image_tags_are_never_null(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    open_model(one, img_start="<a>")
    assert {"img_start=<a>", "img_end=", "img_content="} <= set(one.log)


@pytest.mark.parametrize(
    ("group", "field"),
    [
        ("A", {"n_keep": 1}),
        ("A", {"embed_flash": True}),
        ("A", {"enabled_cpus_mask": 0xF0}),
        ("C", {"n_batch": 2}),
        ("B", {"use_cross_attn": True}),
        ("D", {"ignore_eos_token": True}),
        ("E", {"img_start": "<a>"}),
    ],
    ids=str,
)
def test_a_parameter_that_the_release_lacks_is_refused(
    group: str, field: dict, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    with pytest.raises(Unsupported) as caught:
        open_model(one, **field)
    assert caught.value.capability in field
    assert one.log == [], "the library was not called"


def test_switching_off_what_a_release_lacks_is_allowed(recorder: Callable, open_model: Callable) -> None:
    open_model(recorder("A"), n_batch=1, use_cross_attn=False, ignore_eos_token=False)


@pytest.mark.parametrize(
    "field",
    [
        {"n_batch": 0},
        {"n_batch": 101},
        {"max_context_len": 0},
        {"max_new_tokens": -2},
        {"enabled_cpus_num": 9},
        {"enabled_cpus_num": 5, "enabled_cpus_mask": 0xF0},
        {"base_domain_id": 16},
        {"top_k": 2**31},
        {"top_k": 1.5},
        {"top_p": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "hot"},
        {"img_end": "a\0b"},
    ],
    ids=str,
)
def test_a_parameter_out_of_range_is_refused(field: dict, recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    with pytest.raises(InvalidInput):
        open_model(one, **field)
    assert one.log == []


def test_the_number_of_cpus_follows_a_given_mask(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    open_model(one, enabled_cpus_mask=0b01110000)
    assert {"enabled_cpus_num=3", "enabled_cpus_mask=112"} <= set(one.log)


def test_cpus_are_set_even_where_the_library_leaves_its_mask_unwritten(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("D")  # its mask is 0xa5a5a5a5 unless somebody writes it
    open_model(one)
    choice = rkllmrt.choose_cpus()
    assert {f"enabled_cpus_num={choice.count}", f"enabled_cpus_mask={choice.mask}"} <= set(one.log)


def test_a_run_carries_its_own_limit_and_all_nine_sampling_fields(
    recorder: Callable, open_model: Callable
) -> None:
    for group in "EF":
        one = recorder(group)
        model = open_model(one, top_k=3, mirostat_tau=4.5)
        sampling = Sampling(temperature=0.25, top_p=0.5)
        model.generate(PromptInput("hi"), RunParams(max_new_tokens=17, sampling=sampling, keep_history=True))
        assert {"keep_history=1", "run_max_new_tokens=17", "sampling=3 0.5 0.25 1.1 0 0 0 4.5 0.1"} <= set(
            one.log
        )


def test_a_plain_run_is_all_zero(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    model = open_model(one)
    one.forget()
    model.generate(PromptInput("hi"))
    assert "mode=0" in one.log
    assert not [
        line for line in one.log if line.startswith(("sampling", "lora", "save_prompt", "keep_history=1"))
    ]


@pytest.mark.parametrize(
    ("group", "params"),
    [
        ("A", RunParams(keep_history=True)),
        ("D", RunParams(max_new_tokens=5)),
        ("D", RunParams(sampling=Sampling(top_k=1))),
    ],
    ids=str,
)
def test_what_a_release_cannot_take_per_run_is_refused(
    group: str, params: RunParams, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    one.forget()
    with pytest.raises(Unsupported):
        model.generate(PromptInput("hi"), params)
    assert one.log == []


@pytest.mark.parametrize("limit", [0, -1, 2**31])
def test_a_limit_per_run_that_would_mean_the_default_is_refused(
    limit: int, recorder: Callable, open_model: Callable
) -> None:
    model = open_model(recorder("E"))
    with pytest.raises(InvalidInput):
        model.generate(PromptInput("hi"), RunParams(max_new_tokens=limit))


def test_model_params_of_an_absent_file_are_refused_before_the_library_sees_them(
    recorder: Callable, tmp_path: Path
) -> None:
    one = recorder("D")
    model = rkllmrt.Model(rkllmrt.open_library(one.path), ModelParams(model_path=tmp_path / "absent.rkllm"))
    with pytest.raises(InvalidInput, match="no model file"):
        model.load()
    assert one.log == []
