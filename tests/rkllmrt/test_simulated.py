"""The bindings against the simulated runtime: every release, and every quirk that it can show."""

import array
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import rkllmrt
from rkllmrt import (
    PAUSE,
    EmbedInput,
    ImageEmbeds,
    InferenceFailed,
    InvalidInput,
    LoadFailed,
    ModelParams,
    MultimodalInput,
    PromptCacheFailed,
    PromptInput,
    RunFailed,
    RunParams,
    Sampling,
    TokenInput,
    simulator,
)

VERSION_OF = {"A": "1.1.4", "B": "1.2.0", "C": "1.2.1b1", "D": "1.2.3", "E": "1.3.0", "F": "1.3.1"}
since_d = pytest.mark.parametrize("version", ["1.2.1", "1.2.3", "1.3.0", "1.3.1"])
since_e = pytest.mark.parametrize("version", ["1.3.0", "1.3.1"])
HI = PromptInput("tell me something")


class Talk:
    """A loaded simulated model and what its runs said."""

    def __init__(self, model: rkllmrt.Model) -> None:
        self.model = model
        self.outcome: rkllmrt.RunOutcome

    def say(self, item: rkllmrt.Input | str, params: RunParams | None = None) -> str:
        pieces: list[bytes] = []

        def on_token(text: bytes | None, _token: int) -> None:
            pieces.append(text or b"")

        item = PromptInput(item) if isinstance(item, str) else item
        self.outcome = self.model.generate(item, params or RunParams(), on_token)
        return b"".join(pieces).decode()


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Talk]:
    """Load a model written as lines of a .sim file on a release of the simulator."""

    def load(version: str, *lines: str, tokenizer=None, embedder=None, **params) -> Talk:
        path = tmp_path / "model.sim"
        path.write_text("\n".join(["rkllm-simulator 1", "profile: instant", *lines, ""]))
        library = rkllmrt.open_library(simulator.build(version))
        settings = {"model_path": path, "max_context_len": 1024, "max_new_tokens": 200} | params
        model = rkllmrt.Model(library, ModelParams(**settings), tokenizer=tokenizer, embedder=embedder)
        request.addfinalizer(model.close)
        model.load()
        return Talk(model)

    return load


def test_every_release_answers_and_ends_with_a_null_text(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, 'always: reply "one two three"')
    texts: list[bytes | None] = []
    outcome = talk.model.generate(HI, RunParams(), lambda text, _id: texts.append(text))
    assert b"".join(text or b"" for text in texts) == b"one two three"
    assert texts[-1] is None
    assert (outcome.state, outcome.aborted, outcome.tokens) == ("finished", False, len(texts))
    perf = talk.model.library.capabilities.perf
    assert (outcome.perf is not None) == perf
    assert outcome.perf is None or outcome.perf.generate_tokens == outcome.tokens - 1


def test_the_same_parameters_arrive_in_every_release(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, top_k=7, top_p=0.25, temperature=0.5, mirostat_tau=3.5, base_domain_id=2)
    said = talk.say("show your parameters")
    for shown in (
        *("max_context_len=1024", "max_new_tokens=200", "top_k=7", "top_p=0.25", "temperature=0.5"),
        *("repeat_penalty=1.1", "mirostat_tau=3.5", "skip_special_token=1", "is_async=0", "base_domain_id=2"),
    ):
        assert shown in said.split()


@since_e
def test_sampling_and_limit_of_one_run_do_not_outlive_it(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, temperature=0.5)
    own = RunParams(max_new_tokens=150, sampling=Sampling(temperature=0.25))
    first, second = talk.say("show your parameters", own), talk.say("show your parameters")
    assert {"max_new_tokens=150", "temperature=0.25", "top_k=40"} <= set(first.split())
    assert {"max_new_tokens=200", "temperature=0.5", "top_k=40"} <= set(second.split())


def test_characters_split_over_tokens_arrive_whole(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, "split_utf8: waiting", 'always: reply "😀 grüße 🎉"')
    assert talk.say(HI) == "😀 grüße 🎉"
    assert talk.outcome.tokens > len(["😀", "grüße", "🎉"])


def test_bytes_that_are_no_characters_arrive_as_they_are(load: Callable[..., Talk]) -> None:
    talk = load("1.2.3", "split_utf8: raw", 'always: reply "😀🎉"')
    pieces: list[bytes] = []
    talk.model.generate(HI, RunParams(), lambda text, _id: pieces.append(text or b""))
    assert b"".join(pieces).decode() == "😀🎉"
    assert any(not piece.decode(errors="ignore") and piece for piece in pieces)


def test_an_endless_run_is_aborted_from_another_thread(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group], "always: fault endless", max_new_tokens=-1)
    begun = threading.Event()
    thread = threading.Thread(target=lambda: begun.wait() and talk.model.abort())
    thread.start()
    outcome = talk.model.generate(HI, RunParams(), lambda _text, _id: begun.set())
    thread.join()
    assert (outcome.state, outcome.aborted) == ("finished", True)


def test_an_error_in_the_callback_leaves_a_usable_model(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group], 'always: reply "fine"')
    with pytest.raises(ZeroDivisionError):
        talk.model.generate(HI, RunParams(), lambda _text, _id: 1 // 0)
    assert talk.say(HI) == "fine"


@since_d
def test_late_events_of_an_aborted_run_do_not_reach_the_next(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, "late_events: yes", 'always: reply "one two three four"')
    talk.model.generate(HI, RunParams(), lambda _text, _id: talk.model.abort() and None)
    assert talk.say(HI) == "one two three four"
    assert talk.model.late_events == 1


def test_a_refusal_after_an_abort_is_told_from_a_prompt_too_long(load: Callable[..., Talk]) -> None:
    talk = load("1.3.1", "fail_after_abort: 1", 'always: reply "one two"')
    talk.model.generate(HI, RunParams(), lambda _text, _id: talk.model.abort() and None)
    with pytest.raises(RunFailed) as caught:
        talk.say(HI)
    assert caught.value.after_abort
    assert not caught.value.context_too_long_likely
    talk.model.clear_kv_cache()
    assert talk.say(HI) == "one two"


def test_a_prompt_longer_than_the_window_is_told_without_an_event(
    group: str, load: Callable[..., Talk]
) -> None:
    talk = load(VERSION_OF[group], max_context_len=64)
    with pytest.raises(RunFailed) as caught:
        talk.say("word " * 200)
    assert caught.value.context_too_long_likely
    assert talk.say("say: fine") == "fine"


@since_d
def test_a_paused_run_goes_on_where_it_stopped(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, 'always: reply "one two three four five six"')
    pieces: list[bytes] = []

    def on_token(text: bytes | None, _id: int) -> int:
        pieces.append(text or b"")
        return PAUSE if len(pieces) == 2 else 0

    assert talk.model.generate(HI, RunParams(), on_token).state == "paused"
    assert talk.model.resume(on_token).state == "finished"
    assert b"".join(pieces) == b"one two three four five six"


def test_a_paused_run_is_dropped_by_aborting_it_at_its_next_token(load: Callable[..., Talk]) -> None:
    talk = load("1.2.3", 'when "first": reply "one two three four"', 'when "second": reply "fine"')
    talk.model.generate(PromptInput("first"), RunParams(), lambda _text, _id: PAUSE)
    assert talk.model.resume(lambda _text, _id: talk.model.abort() and None).aborted
    assert talk.say("second") == "fine"


@since_d
def test_ranges_are_cleared_while_paused_and_refused_otherwise(
    version: str, load: Callable[..., Talk]
) -> None:
    talk = load(version)
    with pytest.raises(rkllmrt.WrongState):
        talk.model.clear_kv_cache(ranges=[(0, 2)])
    talk.model.generate(HI, RunParams(), lambda _text, _id: PAUSE)
    before = talk.model.kv_cache_size()[0]
    talk.model.clear_kv_cache(ranges=[(1, 3)])
    assert talk.model.kv_cache_size() == [before - 2]


def test_the_kv_cache_is_measured_and_cleared(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group])
    talk.say(HI)
    capabilities = talk.model.library.capabilities
    if capabilities.kv_cache_size:
        assert talk.model.kv_cache_size()[0] > 0
    if capabilities.clear_kv_cache:
        talk.model.clear_kv_cache()
    if capabilities.kv_cache_size:
        assert talk.model.kv_cache_size() == [0]


@since_d
def test_an_unchanged_prompt_is_not_computed_again(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version)
    talk.say(HI)
    talk.say(HI)
    assert talk.outcome.perf is not None
    assert (talk.outcome.perf.prefill_tokens, talk.outcome.perf.prefill_time_ms) == (0, 0.0)


@since_d
def test_a_prompt_cache_outlives_the_model(version: str, load: Callable[..., Talk], tmp_path: Path) -> None:
    file = tmp_path / f"{version}.cache"
    first = load(version)
    first.say(HI, RunParams(save_prompt_cache=file))
    assert first.outcome.saved_prompt_cache == file
    first.model.close()
    second = load(version)
    second.model.load_prompt_cache(file)
    second.say(HI)
    assert second.outcome.perf is not None
    assert second.outcome.perf.prefill_tokens == 0
    second.model.load_prompt_cache(file)
    second.model.release_prompt_cache()


def test_a_prompt_cache_of_another_model_is_refused_and_the_model_goes_on(
    load: Callable[..., Talk], tmp_path: Path
) -> None:
    file = tmp_path / "other.cache"
    other = load("1.3.1", "name: other")
    other.say(HI, RunParams(save_prompt_cache=file))
    other.model.close()
    talk = load("1.3.1", "name: mine")
    with pytest.raises(PromptCacheFailed) as caught:
        talk.model.load_prompt_cache(file)
    assert "delete" in caught.value.hint
    assert talk.say("say: fine") == "fine"


def test_a_lora_adapter_is_loaded_and_chosen_by_name(
    group: str, load: Callable[..., Talk], tmp_path: Path
) -> None:
    talk = load(VERSION_OF[group])
    adapter = tmp_path / "poet.rkllm"
    adapter.write_bytes(b"weights")
    talk.model.load_lora(adapter, "poet")
    assert talk.say("say: fine", RunParams(lora_name="poet")) == "fine"


def test_hidden_states_and_logits_have_a_row_for_each_token(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group], "vocab_size: 500", "embd_size: 48")
    rows = talk.model.last_hidden_layer(TokenInput([1, 2, 3]))
    assert rows.shape == (3, 48)
    assert rows.any(axis=1).all()
    assert (rows == talk.model.last_hidden_layer(TokenInput([1, 2, 3]))).all()
    if group != "A":
        assert talk.model.logits(TokenInput([1, 2, 3])).shape == (3, 500)


def test_logits_of_tokens_with_history_do_not_end_the_process_of_1_2_3(load: Callable[..., Talk]) -> None:
    talk = load("1.2.3", "vocab_size: 500")
    with pytest.raises(InvalidInput):
        talk.model.logits(TokenInput([1]), RunParams(keep_history=True))
    assert talk.model.logits(TokenInput([1])).shape == (1, 500)


@since_d
def test_a_batch_answers_each_of_its_inputs(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, n_batch=3)
    texts = [b"", b"", b""]
    ended: set[int] = set()

    def on_tokens(step: list) -> None:
        for column, (text, token) in enumerate(step):
            texts[column] += text or b""
            if token < 0:
                ended.add(column)

    items = [PromptInput(f"say: {text}") for text in ("one", "two and more words", "three")]
    outcome = talk.model.generate_batch(items, RunParams(), on_tokens)
    assert [text.decode() for text in texts] == ["one", "two and more words", "three"]
    assert ended == {0, 1, 2}
    assert outcome.perf is not None
    assert len(talk.model.kv_cache_size()) == 3


def test_a_batch_is_stopped_when_the_wanted_inputs_have_ended(load: Callable[..., Talk]) -> None:
    talk = load("1.3.1", n_batch=2)

    def on_tokens(step: list) -> None:
        if step[0][1] < 0:
            talk.model.abort()

    items = [PromptInput("say: short"), PromptInput("story 150 tokens")]
    outcome = talk.model.generate_batch(items, RunParams(), on_tokens)
    assert outcome.aborted
    assert outcome.tokens < 150


def test_the_error_state_is_an_inference_error_of_the_run(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group], 'when "break": fault error after 3 tokens')
    with pytest.raises(InferenceFailed) as caught:
        talk.say("break now, with a long answer of several words")
    assert (caught.value.callbacks, caught.value.context_too_long_likely) == (4, False)
    assert talk.say("say: fine") == "fine"


def test_a_run_without_finish_still_ends(load: Callable[..., Talk]) -> None:
    talk = load("1.3.1", 'always: reply "one", fault no-finish')
    assert talk.say(HI) == "one"
    assert (talk.outcome.state, talk.outcome.perf) == ("finished", None)


def test_a_context_beyond_the_limit_of_the_model_does_not_load(group: str, load: Callable[..., Talk]) -> None:
    with pytest.raises(LoadFailed):
        load(VERSION_OF[group], "max_context: 512", max_context_len=1024)


def test_success_with_a_null_handle_is_not_taken_for_success(load: Callable[..., Talk]) -> None:
    with pytest.raises(LoadFailed, match="no handle"):
        load("1.2.3", "on init: fault null")


@since_e
def test_a_model_without_a_tokenizer_uses_ours_and_gives_ids(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, "tokenizer: none", 'always: reply "one"', tokenizer=lambda text: list(text))
    seen: list = []
    talk.model.generate(HI, RunParams(), lambda text, token: seen.append((text, token)))
    assert seen
    assert all(text is None and token >= 0 for text, token in seen)


def test_a_model_without_an_embedding_layer_uses_ours(load: Callable[..., Talk]) -> None:
    asked: list[int] = []

    def embedder(ids: list[int]) -> array.array:
        asked.append(len(ids))
        return array.array("f", bytes(4 * 8 * len(ids)))

    talk = load("1.3.1", "embedding: none", "embd_size: 8", embedder=embedder)
    assert talk.say("say: fine") == "fine"
    assert asked


def test_the_model_takes_tokens_and_embeddings(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group], 'always: reply "fine"', "embd_size: 8")
    assert talk.say(TokenInput([1, 2, 3])) == "fine"
    assert talk.say(EmbedInput(array.array("f", bytes(4 * 8 * 3)), 3)) == "fine"


def test_an_image_is_taken_with_the_prompt(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group], 'always: reply "a cat"', "embd_size: 8", base_domain_id=1)
    images = ImageEmbeds(embed=array.array("f", bytes(4 * 8 * 4)), n_tokens=4, width=28, height=28)
    assert talk.say(MultimodalInput(prompt="<image>what is this?", images=images)) == "a cat"


@since_d
def test_a_tool_is_called_and_its_result_taken(version: str, load: Callable[..., Talk]) -> None:
    tools = [{"type": "function", "function": {
        "name": "HassTurnOn", "description": "Turns on a device",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
    }}]  # fmt: skip
    talk = load(version)
    talk.model.set_function_tools("You control a home.", json.dumps(tools))
    assert "<tool_call>" in talk.say("turn on the kitchen lamp")
    assert talk.say(PromptInput('[{"success": true}]', role="tool"))


def test_the_raw_template_takes_the_prompt_as_it_is(group: str, load: Callable[..., Talk]) -> None:
    talk = load(VERSION_OF[group])
    talk.model.raw_chat_template()
    prompt = "<|im_start|>user\nsay: fine<|im_end|>\n<|im_start|>assistant\n"
    assert talk.say(prompt) == "fine"


@since_d
def test_thinking_is_switched_for_each_run(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, "thinking: yes")
    assert talk.say(PromptInput("say: fine", enable_thinking=True)).startswith("<think>")
    assert "fine" in talk.say("say: fine")


@since_d
def test_cross_attention_is_set_before_the_run(version: str, load: Callable[..., Talk]) -> None:
    talk = load(version, "cross_attention: yes", 'always: reply "fine"', use_cross_attn=True)
    floats = array.array("f", [0.0, 1.0])
    talk.model.set_cross_attention(floats, floats, floats, [0, 1], 2)
    assert talk.say(HI) == "fine"
