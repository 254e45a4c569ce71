"""The KV cache: what is computed again, what is kept, what a full window does."""

import pytest

RAW = ["context", 2048, "template", "", "", ""]
PREFIX = ("Here is a long text about a house and all the lamps in it. " * 4).strip()


def prefilled(played) -> list[int]:
    return [perf["prefill_tokens"] for perf in played.perfs()]


def test_an_identical_prompt_computes_nothing_and_reports_no_time(play) -> None:
    first, second = play("run", "hello", "run", "hello", lines="floor_ms: 2").perfs()
    assert first["prefill_tokens"] > 0
    assert (second["prefill_tokens"], second["prefill_ms"]) == (0, 0.0)


def test_a_common_prefix_is_not_computed_again(play) -> None:
    played = play(*RAW, "run", PREFIX + " One.", "run", PREFIX + " Two more words.")
    whole, rest = prefilled(played)
    assert whole > 60
    assert rest < 8


def test_group_a_reuses_nothing_and_a_switch_turns_reuse_off(play) -> None:
    off = prefilled(play(*RAW, "run", PREFIX, "run", PREFIX, lines="reuse: no"))
    assert off[0] == off[1] > 0
    slow = "prefill_ms_per_token: 1000"
    words = ["run", "hello", "run", "hello"]
    table = play(*words, lines=slow, version="1.1.4", RKLLM_SIM_CLOCK="virtual", RKLLM_LOG_LEVEL=1).log
    rows = [line.split() for line in table.splitlines() if "Prefill" in line]
    assert rows[0][4] == rows[1][4] != "0"


def test_generated_tokens_are_in_the_kv_or_not(play) -> None:
    answer = "You said: the cat sat."
    words = [*RAW, "run", "the cat sat.", "run", f"the cat sat.{answer} and then"]
    kept = prefilled(play(*words, lines="joins: stable"))[1]
    dropped = prefilled(play(*words, lines="joins: stable\nreuse_generated: no"))[1]
    # The answer has seven tokens.
    assert dropped - kept == 7


def test_an_aborted_run_is_reused_or_not(play) -> None:
    words = [*RAW, "abort-after", 2, "run", PREFIX, "run", PREFIX]
    assert prefilled(play(*words))[1] == 0
    assert prefilled(play(*words, lines="reuse_aborted: no"))[1] > 60


def test_an_unstable_join_costs_one_token_more(play) -> None:
    words = ["max", 1, *RAW, "run", PREFIX, "run", PREFIX + " More."]
    stable = prefilled(play(*words, lines="joins: stable"))[1]
    unstable = prefilled(play(*words, lines="joins: unstable"))[1]
    assert unstable == stable + 1


def test_matching_may_go_in_blocks(play) -> None:
    words = ["max", 1, *RAW, "run", PREFIX, "run", PREFIX + " More."]
    whole, rest = prefilled(play(*words, lines="joins: stable\nreuse_granularity: 32"))
    assert whole > 64
    assert (whole + 2 - rest) % 32 == 0


def test_clearing_forces_a_full_prefill_even_with_the_system_prompt_kept(play) -> None:
    words = ["template", PREFIX, "<u>", "</u>", "run", "one", "size", "clear", 1, "size", "run", "one"]
    played = play("context", 512, *words)
    before, after = (event["n"] for event in played.of("size"))
    assert before > after > 60
    assert prefilled(played)[1] == prefilled(played)[0]
    assert play("run", "one", "clear", 0, "size").of("size")[0]["n"] == 0


def test_the_two_argument_form_works_before_1_2_1(play) -> None:
    assert play("run", "one", "clear", 0, version="1.2.0").of("clear")[0]["status"] == 0


def test_ranges_are_refused_unless_paused_without_history(play) -> None:
    refusal = (
        "E rkllm: start_pos and end_pos are only valid when keep_history == 0 and the generation has been "
        "paused by returning 1 in the callback!"
    )
    idle = play("run", "hello", "range", 0, 3)
    assert idle.of("range")[0]["status"] == -1
    assert refusal in idle.log
    with_history = play("history", 1, "pause-after", 2, "run", "hello", "range", 0, 3)
    assert with_history.of("range")[0]["status"] == -1
    paused = play("pause-after", 2, "run", "hello", "size", "range", 2, 5, "size", "range", 0, 5000)
    assert [event["status"] for event in paused.of("range")] == [0, -1]
    sizes = [event["n"] for event in paused.of("size")]
    assert sizes[1] == sizes[0] - 3


def test_history_accumulates_and_single_turns_do_not(play) -> None:
    played = play(
        "history", 1, "run", "one", "size", "run", "two", "size", "history", 0, "run", "one", "size"
    )
    first, second, single = (event["n"] for event in played.of("size"))
    assert second > first
    assert single < second
    assert prefilled(played)[1] > 0


def test_a_prompt_that_does_not_fit_is_refused_without_a_callback(play) -> None:
    run = play("context", 64, "run", PREFIX).runs()[0]
    assert run == [{"event": "run", "status": -1}]
    words = ["context", 64, "history", 1] + ["run", "tell me about the house and the garden"] * 4
    assert play(*words).of("run")[-1]["status"] == -1


def test_generation_past_the_window_goes_on_and_keeps_the_start(play) -> None:
    played = play("context", 128, "keep", 4, "run", "story 900 tokens", "size")
    run = played.runs()[0]
    assert sum(1 for event in run if event["event"] == "normal" and event["text"]) == 900
    assert played.of("size")[0]["n"] <= 128


@pytest.mark.parametrize("prompt", [""])
def test_an_empty_prompt_is_refused(play, prompt: str) -> None:
    assert play(*RAW, "run", prompt).of("run") == [{"event": "run", "status": -1}]


def test_another_lora_shares_no_keys(play, tmp_path) -> None:
    (tmp_path / "adapter").write_text("weights")
    words = ["lora", tmp_path / "adapter", "run", "hello", "use-lora", "mine", "run", "hello", "run", "hello"]
    base, adapted, again = prefilled(play(*words))
    assert base == adapted > 0
    assert again == 0


def test_an_unknown_lora_is_refused_with_a_line(play, tmp_path) -> None:
    played = play("use-lora", "mine", "run", "hello", "lora", tmp_path / "absent")
    assert played.of("run")[0]["status"] == -1
    assert "E rkllm: lora adapter mine is not loaded" in played.log
    assert played.of("lora")[0]["status"] == -1
