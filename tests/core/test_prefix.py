"""The promise of `core/prefix.py`: beginnings are known again by their hashes, and never two for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.prefix import Chain, fingerprint_of

SYSTEM = "<|im_start|>system\n" + "Be brief and kind. " * 40 + "<|im_end|>\n"
TEXTS = st.text(st.sampled_from("ab<|im_start|>\nüé"), max_size=600)


def ask(text):
    return SYSTEM + f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def chain(text, fingerprint="qwen"):
    return Chain.of(text, fingerprint)


@given(TEXTS, TEXTS, TEXTS)
def test_what_is_called_shared_is_shared_and_no_more_than_a_block_is_missed(shared, one, other):
    a, b = shared + one, shared + other
    found = chain(a).shared(chain(b))
    assert a[:found] == b[:found]
    assert found == chain(b).shared(chain(a))
    whole = min(len(a), len(b)) if a.startswith(b) or b.startswith(a) else len(shared)
    assert found >= min(whole, len(shared)) - 128 - len("<|im_start|>")


def test_another_question_shares_all_up_to_its_message():
    shared = chain(ask("What time is it?")).shared(chain(ask("Is it dark outside?")))
    assert ask("x")[:shared].startswith(SYSTEM + "<|im_start|>user"[:0])
    assert shared >= len(SYSTEM)


def test_the_next_turn_shares_the_whole_one_before_with_its_answer():
    before = ask("What time is it?") + "It is ten o'clock."
    after = before + "<|im_end|>\n<|im_start|>user\nThanks.<|im_end|>\n<|im_start|>assistant\n"
    assert chain(before).begins(chain(after))
    assert chain(after).shared(chain(before)) == len(before)


@pytest.mark.parametrize("other", ["llama", ""])
def test_nothing_is_shared_with_another_model_or_with_nothing(other):
    assert chain(SYSTEM).shared(chain(SYSTEM, other)) == 0
    assert chain(SYSTEM).shared(None) == 0
    assert chain("").shared(chain("")) == 0
    assert not chain("").begins(chain(SYSTEM))


def test_a_beginning_of_a_chain_is_the_chain_of_that_beginning():
    whole = chain(ask("What time is it?"))
    assert whole.cut(len(SYSTEM)) == chain(SYSTEM)
    assert whole.cut(len(SYSTEM)).name == chain(SYSTEM).name
    assert whole.cut(0).chars == 0


def test_it_can_be_kept_without_its_text():
    kept = chain(ask("a secret")).to_json()
    assert Chain.from_json(kept) == chain(ask("a secret"))
    assert "secret" not in repr(kept)


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"fingerprint": "x", "ends": [1], "digests": []},
        {"fingerprint": "x", "ends": [2, 1], "digests": "ab"},
    ],
)
def test_what_is_no_chain_is_refused(kept):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Chain.from_json(kept)


def test_a_fingerprint_tells_each_part_from_any_other():
    parts = [(1, "a"), (1, "b"), ("1", "a"), ((1,), "a"), (1, "a", None)]
    assert len({fingerprint_of(each) for each in parts}) == len(parts)


def test_a_beginning_that_is_no_cut_is_known_and_hides_no_other():
    prompt = ask("What time is it?")
    state = Chain.of(prompt + "Ten o'clock.", "qwen", len(prompt))
    assert chain(prompt).shared(state) == len(prompt)
    after = prompt + "Ten o'clock.<|im_end|>\n<|im_start|>user\nThanks.<|im_end|>\n<|im_start|>assistant\n"
    assert state.begins(chain(after))
    assert state.begins(Chain.of(after + "Welcome.", "qwen", len(after)))
    assert state == chain(prompt + "Ten o'clock.")
