"""Hidden states, logits and prompt-cache files of a run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from rkllmrt import InferenceFailed, InvalidInput, PromptInput, RunFailed, RunParams, TokenInput, Unsupported

HI = PromptInput("hi")


def test_hidden_states_are_copied_while_the_library_lends_them(
    group: str, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    one.script("hf")
    rows = model.last_hidden_layer(HI)
    assert rows.dtype == numpy.float32
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert "mode=1" in one.log
    assert one.answers[0] == (2 if group in "EF" else 0), (
        "the output is released where the release documents it"
    )


def test_logits_are_copied_while_the_library_lends_them(recorder: Callable, open_model: Callable) -> None:
    for group in "BCDEF":
        one = recorder(group)
        model = open_model(one)
        one.script("tlf")
        assert model.logits(HI).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        assert "mode=2" in one.log


def test_rows_that_come_in_parts_are_joined(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    one.script("hhf")
    assert model.last_hidden_layer(HI).shape == (4, 3)


def test_only_the_last_rows_are_copied_where_no_others_are_wanted(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.script("tlf")
    assert model.logits(HI, last=2).tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    one.script("llf")
    assert model.logits(HI, last=1).shape == (1, 4), "of rows in parts, the last part's"
    one.script("lf")
    assert model.logits(HI, last=99).shape == (3, 4)


def test_logits_before_they_existed_are_unsupported(recorder: Callable, open_model: Callable) -> None:
    with pytest.raises(Unsupported):
        open_model(recorder("A")).logits(HI)


def test_a_run_that_delivers_no_array_has_failed(recorder: Callable, open_model: Callable) -> None:
    one = recorder("D")
    model = open_model(one)
    one.script("tf")
    with pytest.raises(InferenceFailed, match="delivered no last_hidden_layer"):
        model.last_hidden_layer(HI)


def test_logits_of_tokens_with_history_are_refused_where_they_end_the_process(
    recorder: Callable, open_model: Callable
) -> None:
    for group in "BCDEF":
        one = recorder(group)
        model = open_model(one)
        one.script("lf")
        if group in "EF":
            model.logits(TokenInput([1]), RunParams(keep_history=True))
            continue
        with pytest.raises(InvalidInput, match="end the process"):
            model.logits(TokenInput([1]), RunParams(keep_history=True))
        model.logits(TokenInput([1]))
        model.logits(HI, RunParams(keep_history=True))


def test_numpy_is_not_imported_before_an_array_is_asked_for() -> None:
    code = "import sys, rkllmrt, rkllmrt.model; sys.exit('numpy' in sys.modules)"
    folder = Path(__file__).parents[2] / "bindings"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(folder)})


def test_a_saved_prompt_cache_gets_its_name_when_it_is_complete(
    group: str, recorder: Callable, open_model: Callable, tmp_path: Path
) -> None:
    one = recorder(group)
    model = open_model(one)
    target = tmp_path / "prefix.cache"
    outcome = model.generate(
        HI, RunParams(save_prompt_cache=target), lambda _text, _id: target.exists() and 1 // 0
    )
    assert outcome.saved_prompt_cache == target
    assert target.exists()
    assert "save_prompt_cache=1" in one.log
    assert list(tmp_path.glob("*.part")) == []


def test_a_failed_run_leaves_no_prompt_cache(
    recorder: Callable, open_model: Callable, tmp_path: Path
) -> None:
    one = recorder("D")
    model = open_model(one)
    one.number("run_status", -1)
    with pytest.raises(RunFailed):
        model.generate(HI, RunParams(save_prompt_cache=tmp_path / "prefix.cache"))
    assert list(tmp_path.glob("prefix*")) == []


@pytest.mark.parametrize("path", [Path(), Path("a\0b")])
def test_a_prompt_cache_without_a_usable_name_is_refused(
    path: Path, recorder: Callable, open_model: Callable
) -> None:
    model = open_model(recorder("D"))
    with pytest.raises(ValueError):  # noqa: PT011 - ours, or that of pathlib
        model.generate(HI, RunParams(save_prompt_cache=path))


def test_a_run_has_its_own_parameters_whatever_the_run_before_had(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("E")
    model = open_model(one, max_new_tokens=70)
    asked = [5, 5, None, 6, None]
    for limit in asked:
        model.generate(HI, RunParams() if limit is None else RunParams(max_new_tokens=limit))
    one.script("hf")
    model.last_hidden_layer(HI)
    assert [line for line in one.log if line.startswith("run_max_new_tokens=")] == [
        f"run_max_new_tokens={limit or 0}" for limit in (*asked, None)
    ]
    assert [line for line in one.log if line.startswith("mode=")] == ["mode=0"] * len(asked) + ["mode=1"]


def test_a_run_has_its_own_prompt_whatever_the_run_before_had(
    recorder: Callable, open_model: Callable
) -> None:
    one = recorder("E")
    model = open_model(one)
    asked = [("one", False), ("the second", True), ("3", False), ("the fourth", True)]
    for text, thinking in asked:
        model.generate(PromptInput(text, enable_thinking=thinking))
    model.set_chat_template("", "", "")
    model.generate(PromptInput("5"))
    with pytest.raises(InvalidInput, match="no effect"):
        model.generate(PromptInput("6", enable_thinking=True))
    told = [line for line in one.log if line.startswith(("prompt_input=", "enable_thinking="))]
    expected = [(f"enable_thinking={int(on)}", f"prompt_input={text}") for text, on in [*asked, ("5", False)]]
    assert told == [line for pair in expected for line in pair]


def test_a_lora_adapter_is_chosen_by_name(
    group: str, recorder: Callable, open_model: Callable, tmp_path: Path
) -> None:
    one = recorder(group)
    model = open_model(one)
    adapter = tmp_path / "poet.rkllm"
    adapter.write_bytes(b"weights")
    model.load_lora(adapter, "poet", 0.5)
    assert {f"lora_adapter_path={adapter}", "lora_adapter_name=poet", "scale=0.5"} <= set(one.log)
    one.forget()
    model.generate(HI, RunParams(lora_name="poet"))
    assert "lora_adapter_name=poet" in one.log
    with pytest.raises(InvalidInput, match="'cook' was loaded"):
        model.generate(HI, RunParams(lora_name="cook"))
