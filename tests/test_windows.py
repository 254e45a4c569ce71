"""The promise of `windows.py`: a prompt fits, without its old turns, or is refused with numbers."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rkllm_mqtt.core.tokens import TokenEstimator
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.render.tokenizer import ExactTokenizer
from rkllm_mqtt.windows import Windows

RENDERER = Renderer("chatml")
WORDS = "the kitchen light is on and nobody is in the room "


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    return {"role": "assistant", "content": text}


def talk(turns, words=20):
    said = [message for n in range(turns) for message in (user(f"{n} {WORDS * words}"), answer(WORDS))]
    return [{"role": "system", "content": "Be brief."}, *said, user("the question")]


@pytest.fixture
def exact(tmp_path):
    """A tokenizer for which a word is a token."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return ExactTokenizer(tmp_path / "tokenizer.json")


def of(limit, tokenizer=None):
    return Windows(
        lambda _: limit, {"m": TokenEstimator()}.__getitem__, {"m": tokenizer} if tokenizer else {}
    )


def fitted(windows, messages, max_tokens=100):
    return windows.fitted("m", messages, max_tokens, RENDERER.render)


def test_what_fits_is_rendered_whole():
    prompt = fitted(of(4_096), talk(2))
    assert prompt.rendered == RENDERER.render(talk(2))
    assert (prompt.left_out, prompt.max_tokens) == (0, 100)
    assert prompt.tokens.low < prompt.tokens.tokens < prompt.tokens.high


def test_the_oldest_turns_are_left_out_and_the_system_prompt_and_the_question_stay(exact):
    windows = of(1_000, exact)
    prompt = fitted(windows, talk(10))
    assert prompt.left_out == 14
    assert "Be brief." in prompt.rendered.text
    assert "the question" in prompt.rendered.text
    assert "\n6 the kitchen" not in prompt.rendered.text
    assert "\n7 the kitchen" in prompt.rendered.text
    assert prompt.tokens.tokens == exact.count(prompt.rendered.text) <= 1_000 - 62


def test_an_answer_is_capped_to_what_the_window_leaves(exact):
    prompt = fitted(of(1_000, exact), [user("word " * 900)], max_tokens=500)
    assert prompt.max_tokens == 1_000 - prompt.tokens.tokens
    assert prompt.left_out == 0


def test_where_not_even_the_question_fits_the_numbers_are_told(exact):
    with pytest.raises(RenderError, match=r"has 1\d\d\d tokens, the window of the model 1000") as refused:
        fitted(of(1_000, exact), [*talk(2)[:-1], user("word " * 1_200)])
    assert refused.value.code == "context_overflow"
    with pytest.raises(RenderError, match="has about"):
        fitted(of(1_000), [user(WORDS * 1_000)])


def test_what_may_fit_is_tried_with_the_question_alone():
    windows = of(1_000)
    text = WORDS
    while windows.count("m", RENDERER.render([user(text)]).text).tokens <= 1_100:
        text += WORDS
    prompt = fitted(windows, [*talk(3)[:-1], user(text)])
    assert prompt.tokens.low < 1_000 < prompt.tokens.tokens
    assert (prompt.left_out, prompt.max_tokens) == (6, 1)
