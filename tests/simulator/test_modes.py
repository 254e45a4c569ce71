"""Hidden states, logits, pictures, embeddings, callbacks of the caller, cross attention."""

import pytest

HIDDEN, LOGITS = 1, 2


def test_hidden_states_have_a_row_per_token_and_depend_on_the_text(play) -> None:
    played = play("mode", HIDDEN, "run", "hello", "run", "hello", "run", "other", lines="embd_size: 64")
    rows = played.of("normal")
    assert [row["size"] for row in rows] == [64, 64, 64]
    assert rows[0]["rows"] > 5
    assert rows[0]["text"] is None
    again = play(
        "mode", HIDDEN, "template", "", "", "", "run", "hello", "run", "other", lines="embd_size: 64"
    ).of("normal")
    assert again[0]["first"] != again[1]["first"]
    assert len(played.perfs()) == 3


def test_group_a_has_a_state_of_its_own_for_hidden_states(play) -> None:
    played = play("mode", HIDDEN, "run", "hello", lines="embd_size: 16", version="1.1.4")
    assert [event["event"] for event in played.runs()[0]] == ["hidden", "finish", "run"]


def test_logits_point_at_the_first_token_of_the_answer(play) -> None:
    lines = "vocab_size: 1000"
    generated = play("run", "hello", lines=lines).of("normal")[0]["id"]
    played = play("mode", LOGITS, "run", "hello", lines=lines)
    assert played.of("logits")[0]["size"] == 1000
    assert played.of("logits")[0]["best"] == generated


def test_rows_of_cached_tokens_may_be_missing(play) -> None:
    lines = "vocab_size: 1000\nmodes_reuse: yes\njoins: stable"
    words = [
        "mode",
        LOGITS,
        "template",
        "",
        "",
        "",
        "run",
        "one two",
        "run",
        "one two six",
        "run",
        "one two six",
    ]
    played = play(*words, lines=lines)
    assert [row["rows"] for row in played.of("logits")] == [2, 1]
    assert [perf["prefill_tokens"] for perf in played.perfs()] == [2, 1, 0]


def test_logits_of_a_large_vocabulary_are_refused(play) -> None:
    played = play("mode", LOGITS, "run", "hello", lines="vocab_size: 300000")
    assert played.of("run")[0]["status"] == -1
    assert "asks for too much memory" in played.log


def test_logits_of_tokens_within_a_conversation_kill_1_2_3(play) -> None:
    words = ["history", 1, "mode", LOGITS, "ids", "1,2,3"]
    dead = play(*words, lines="vocab_size: 1000", version="1.2.3")
    assert dead.status == -6
    assert "GGML_ASSERT" in dead.errors
    assert play(*words, lines="vocab_size: 1000", version="1.3.0").status == 0


def test_embeddings_as_input_are_answered(play) -> None:
    played = play("rows", 5, 16, "rows", 5, 16, lines="embd_size: 16")
    assert played.texts()[0] == "You sent 5 embedded tokens."
    assert [perf["prefill_tokens"] for perf in played.perfs()] == [5, 0]
    old = play("rows", 5, 16, "rows", 5, 16, lines="embd_size: 16", version="1.2.2")
    assert [perf["prefill_tokens"] for perf in old.perfs()] == [5, 5]


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1b1", "1.3.1"])
def test_pictures_count_as_their_tokens(play, version: str) -> None:
    played = play("image", "<image>What is it?", 1, 16, lines="embd_size: 16", version=version)
    assert played.texts() == ["I got 1 <image> of 6 tokens. You said: <image>What is it?"]


def test_the_number_of_pictures_must_agree_with_the_prompt(play) -> None:
    played = play("image", "<image><image> and?", 1, 16, "image", "none", 1, 16, lines="embd_size: 16")
    assert [event["status"] for event in played.of("run")] == [-1, -1]
    assert "E rkllm: the prompt has 2 <image> but the input brings 1" in played.log


def test_a_model_without_tokenizer_asks_the_caller_and_gives_no_text(play) -> None:
    played = play("callbacks", "run", "hello", lines="tokenizer: none", version="1.3.0")
    assert played.of("tokenize")[0]["user"] == 8
    assert all(event["text"] is None for event in played.of("normal"))
    assert len(played.of("normal")) > 1
    refused = play("run", "hello", lines="tokenizer: none", version="1.3.0")
    assert refused.of("run")[0]["status"] == -1
    reason = "model has no internal tokenizer and no external tokenizer_callback provided."
    assert f"E rkllm: Tokenizer is unavailable: {reason}" in refused.log


def test_a_model_without_embedding_asks_the_caller_for_the_prompt_and_every_token(play) -> None:
    played = play("callbacks", "run", "say: one two", lines="embedding: none\nembd_size: 16", version="1.3.1")
    prompt, *steps = played.of("embed")
    assert prompt["user"] == 9
    assert prompt["bytes"] == prompt["n"] * 16 * 4
    assert [step["n"] for step in steps] == [1, 1]
    refused = play("run", "hello", lines="embedding: none")
    assert refused.of("run")[0]["status"] == -1
    assert "E rkllm: Model has no embedding layer and no embed callback provided." in refused.log


def test_cross_attention_needs_the_model_the_setting_and_its_tensors(play) -> None:
    lines = "cross_attention: yes"
    good = play("cross", "attend", "run", "hello", lines=lines)
    assert (good.of("attend")[0]["status"], good.of("run")[0]["status"]) == (0, 0)
    assert play("attend", lines=lines).of("attend")[0]["status"] == -1
    assert play("cross", "run", "hello", lines=lines).of("run")[0]["status"] == -1
    assert play("cross").of("init")[0]["status"] == -1
