"""The promise of `render/tokenizer.py`: the exact count, or a sentence about what is missing."""

import builtins

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.tokenizer import ExactTokenizer


@pytest.fixture
def path(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_tokens_are_counted_with_special_ones_as_one_and_none_added(path):
    counter = ExactTokenizer(path)
    assert counter.count("") == 0
    assert counter.count("the light is on") == 4
    assert counter.count("the light<|im_end|>") == 3


def test_the_tokens_of_a_text_behind_a_prompt_are_its_own(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "light": 1, "Yes": 2, "lightYes": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    counter = ExactTokenizer(tmp_path / "tokenizer.json")
    assert counter.behind("light ", "Yes light") == (2, 1)
    assert counter.behind("light", "Yes") is None, "one token across the border is of neither"


def test_a_file_that_is_no_tokenizer_is_refused_by_its_name(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RenderError, match=r"tokenizer\.json is no tokenizer"):
        ExactTokenizer(tmp_path / "tokenizer.json")


def test_without_the_library_the_hint_says_how_to_get_it(path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RenderError, match="needs the library") as refused:
        ExactTokenizer(path)
    assert "rkllm-mqtt[tokenizer]" in refused.value.hint
