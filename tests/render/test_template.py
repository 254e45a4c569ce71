"""The promise of `render/template.py`: a family or the model's files give template and tokens."""

import pytest

from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.template import FAMILIES, open_template

SOURCE = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
CONFIG = {
    "bos_token": {"content": "<s>", "lstrip": False},
    "eos_token": "<|done|>",
    "pad_token": None,
    "add_bos_token": True,
    "additional_special_tokens": ["<|extra|>", "<|im_start|>"],
    "added_tokens_decoder": {
        "1": {"content": "<|fill|>", "special": True},
        "2": {"content": "<tool_call>", "special": True},
        "3": {"content": "ordinary", "special": False},
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_ends_answers_and_drops_only_what_does_not_end_them(family):
    template = open_template(family)
    assert template.source
    assert template.stops
    assert not set(template.stops) & set(template.specials)


def test_a_tokenizer_config_gives_template_and_tokens(model_folder):
    folder = model_folder(tokenizer_config_json={**CONFIG, "chat_template": SOURCE})
    template = open_template(str(folder / "tokenizer_config.json"))
    assert template.source == SOURCE
    assert template.tokens == {"bos_token": "<s>", "eos_token": "<|done|>"}
    assert template.stops == ("<|done|>", "<|im_end|>", "<|im_start|>")
    assert template.specials == ("<s>", "<|extra|>", "<|fill|>")


def test_a_template_file_takes_the_tokens_from_the_config_beside_it(model_folder):
    folder = model_folder(chat_template_jinja=SOURCE, tokenizer_config_json=CONFIG)
    assert open_template(str(folder / "chat_template.jinja")).stops[0] == "<|done|>"


def test_a_template_file_alone_is_enough(model_folder):
    template = open_template(str(model_folder(my_jinja=SOURCE) / "my.jinja"))
    assert template.stops == ("<|im_end|>", "<|im_start|>")
    assert template.tokens == {}


def test_a_chat_template_json_takes_the_tokens_from_the_config_beside_it(model_folder):
    folder = model_folder(chat_template_json={"chat_template": SOURCE}, tokenizer_config_json=CONFIG)
    template = open_template(str(folder / "chat_template.json"))
    assert (template.source, template.tokens["bos_token"]) == (SOURCE, "<s>")


def test_a_config_without_a_template_finds_the_template_beside_it(model_folder):
    folder = model_folder(chat_template_jinja=SOURCE, tokenizer_config_json=CONFIG)
    assert open_template(str(folder / "tokenizer_config.json")).source == SOURCE


def test_of_several_named_templates_default_and_tool_use_are_taken(model_folder):
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    folder = model_folder(tokenizer_config_json={"chat_template": named})
    template = open_template(str(folder / "tokenizer_config.json"))
    assert (template.source, template.tool_source) == ("D", "T")


@pytest.mark.parametrize(
    ("files", "file_name", "complaint"),
    [
        ({}, "chatlm", "no chat template 'chatlm'"),
        ({"tokenizer_config_json": CONFIG}, "tokenizer_config.json", "holds no chat template"),
        ({"tokenizer_config_json": "{"}, "tokenizer_config.json", "not valid JSON"),
        ({"tokenizer_config_json": "[]"}, "tokenizer_config.json", "not a JSON object"),
        (
            {"tokenizer_config_json": {"chat_template": [5]}},
            "tokenizer_config.json",
            "holds no chat template",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_a_hint(model_folder, files, file_name, complaint):
    path = model_folder(**files) / file_name
    with pytest.raises(RenderError, match=complaint) as caught:
        open_template(str(path) if path.exists() else file_name)
    assert caught.value.hint
    assert caught.value.code == "model_error"


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "model.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RenderError, match="cannot be read"):
        open_template(str(tmp_path / "model.jinja"))
