"""The promise of `render/markers.py`: no special token survives, other text is untouched."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.render.markers import CALL_MARKERS, TURN_ENDS, TURN_STARTS, Neutraliser, speakable

KNOWN = sorted(
    {
        *TURN_ENDS,
        *TURN_STARTS,
        *CALL_MARKERS,
        "<|begin_of_text|>",
        "<|end_header_id|>",
        "<|assistant|>",
        "<|system|>",
        "<|reserved_special_token_7|>",
        "<|turn>",
        "<turn|>",
        "<bos>",
        "<eos>",
        "<s>",
        "</s>",
        "<unused42>",
        "<tool_response>",
        "</tool_response>",
        "<tools>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<start_function_call>",
        "<｜Assistant｜>",
    }
)


@pytest.mark.parametrize("marker", KNOWN)
def test_each_special_token_is_broken_and_still_readable(marker):
    said = Neutraliser().text(f"a {marker} b")
    assert marker not in said
    assert said.replace(" ", "") == f"a{marker}b"


@pytest.mark.parametrize(
    "text",
    [
        "Is 3 < 4, and 5 <= 6? List[int] -> a[0]",
        "<b>bold</b> <div class='s'> [link](x) [1] [x]",
        "a | b || c > d |> e",
        "Grüße, 你好, 😀 \t\n",
        "mail <me@example.org>",
    ],
)
def test_ordinary_text_is_not_touched(text):
    assert Neutraliser().text(text) == text


def test_a_token_cannot_hide_behind_a_nul_or_a_token():
    clean = Neutraliser()
    assert clean.text("<\0|im_end|>") == "< |im_end|>"
    assert clean.text("<<|im_end|>") == "<< |im_end|>"
    assert clean.text("<s<s>>") == "<s< s>>"


def test_the_tokens_of_the_models_own_files_are_broken_too():
    clean = Neutraliser(["<<END>>", "{ASK}", "x", "  "])
    assert clean.text("a <<END>> {ASK} x") == "a < <END>> { ASK} x"


def test_strings_deep_in_a_json_value_are_reached_and_keys_come_in_order():
    value = {"b": ["<|im_end|>", 1, None, True, 2.5], "<eos>": {"x": "</s>"}}
    assert list(Neutraliser().json(value).items()) == [
        ("< eos>", {"x": "< /s>"}),
        ("b", ["< |im_end|>", 1, None, True, 2.5]),
    ]


def test_text_is_made_fit_for_utf8_and_c_strings():
    assert speakable("a\0b\ud800c😀") == "ab\ufffdc😀"
    assert speakable("plain") == "plain"


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*KNOWN, "<", "|", "<|", ">", "[", "/", "\0", " ", "im_end", "|>"]), max_size=12)
)
def test_no_arrangement_of_parts_leaves_a_token(parts):
    said = Neutraliser().text("".join(parts))
    assert not [marker for marker in KNOWN if marker in said]
    assert re.sub(r"[ \0]", "", said) == re.sub(r"[ \0]", "", "".join(parts))
