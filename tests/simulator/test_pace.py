"""Times on the virtual clock: the table of real models within 5 %, the artificial profiles exactly."""

import json
import time

import pytest

from rkllmrt import simulator

VIRTUAL = {"RKLLM_SIM_CLOCK": "virtual"}
TABLE = {
    "qwen2-0.5b": (145.90, 41.58),
    "qwen2.5-1.5b": (378.31, 16.69),
    "qwen3-0.6b": (199.09, 32.91),
    "qwen3-vl-2b": (383.62, 14.98),
    "tinyllama-1.1b": (243.93, 24.43),
    "gemma2-2b": (598.41, 10.37),
    "minicpm4-0.5b": (135.29, 45.34),
    "phi3-3.8b": (1017.28, 7.45),
    "chatglm3-6b": (1352.94, 4.98),
}


def prompt_of(tokens: int, kind: int = 0) -> str:
    """A raw prompt of exactly so many tokens that asks for a story of 200 tokens."""
    head = "story 200 tokens"  # seven tokens: each digit is one, and the long word is two
    return head + (" abcd" if kind == 0 else " efgh") * (tokens - 7)


@pytest.mark.parametrize("profile", TABLE)
def test_a_profile_keeps_to_the_table_of_measurements(play, profile: str) -> None:
    ttft_ms, tokens_per_s = TABLE[profile]
    words = ["max", 64, "template", "", "", "", "run", prompt_of(128)]
    perf = play(*words, lines=f"profile: {profile}", **VIRTUAL).perfs()[0]
    assert perf["prefill_tokens"] == 128
    assert perf["generate_tokens"] == 63
    assert perf["prefill_ms"] == pytest.approx(ttft_ms, rel=0.05)
    assert 63e3 / perf["generate_ms"] == pytest.approx(tokens_per_s, rel=0.05)


def test_origin_takes_the_same_prefill_whatever_the_prompt(play) -> None:
    words = ["context", 16000, "max", 11, "template", "", "", ""]
    played = play(
        *words,
        "run",
        prompt_of(10),
        "run",
        prompt_of(4000, 1),
        path=simulator.MODELS / "origin.sim",
        **VIRTUAL,
    )
    for perf in played.perfs():
        assert perf["prefill_ms"] == pytest.approx(295)
        assert perf["generate_ms"] == pytest.approx(641.4)


def test_a_cached_prefix_costs_the_floor_and_the_new_tokens(play) -> None:
    prefix = prompt_of(1200)
    words = ["context", 4096, "max", 1, "template", "", "", ""]
    lines = "profile: cached-prefix\njoins: stable"
    played = play(*words, "run", prefix, "run", prefix + " efgh" * 20, "run", prefix, lines=lines, **VIRTUAL)
    cold, warm, same = played.perfs()
    assert cold["prefill_ms"] == pytest.approx(97 + 3.92 * 1200)
    assert (warm["prefill_tokens"], warm["prefill_ms"]) == (20, pytest.approx(97 + 3.92 * 20))
    assert (same["prefill_tokens"], same["prefill_ms"]) == (0, 0)


def test_prefill_grows_faster_than_the_prompt_and_decode_slows_down(play) -> None:
    words = ["context", 4096, "max", 33, "template", "", "", ""]
    played = play(
        *words,
        "run",
        prompt_of(1000),
        "run",
        prompt_of(4000, 1),
        lines="profile: qwen2.5-1.5b\njitter: 0",
        **VIRTUAL,
    )
    short, long = played.perfs()
    assert long["prefill_ms"] > 4.2 * short["prefill_ms"]
    assert long["generate_ms"] > 1.2 * short["generate_ms"]


def test_the_end_of_a_long_prompt_costs_more_than_its_beginning_also_when_the_rest_is_reused(play) -> None:
    """A warm prefix spares its own part of the curve, not the slope behind it."""
    lines = "prefill_ms_per_token: 1\nprefill_ms_per_token_squared: 0.001\njoins: stable"
    words = ["context", 4096, "max", 1, "template", "", "", ""]
    prefix = prompt_of(3000)
    played = play(
        *words, "run", prefix, "run", prefix + " efgh" * 100, "run", prompt_of(100, 1), lines=lines, **VIRTUAL
    )
    cold, behind, short = played.perfs()
    assert cold["prefill_ms"] == pytest.approx(3000 + 0.001 * 3000**2)
    assert behind["prefill_tokens"] == 100
    assert behind["prefill_ms"] == pytest.approx(100 + 0.001 * (3100**2 - 3000**2))
    assert short["prefill_ms"] < behind["prefill_ms"] / 3


def test_every_step_pays_for_the_context_it_has_grown_to(play) -> None:
    words = ["context", 4096, "max", 101, "template", "", "", "", "run", prompt_of(1000)]
    lines = "decode_ms_per_token: 10\ndecode_ms_per_context_token: 0.01"
    perf = play(*words, lines=lines, **VIRTUAL).perfs()[0]
    assert perf["generate_ms"] == pytest.approx(sum(10 + 0.01 * (1000 + step) for step in range(1, 101)))


def test_a_hot_chip_is_slower(play) -> None:
    lines = "decode_ms_per_token: 10\nthermal_after_s: 1\nthermal_factor: 1.5"
    first, second = play("run", "story 100 tokens", "run", "story 100 tokens", lines=lines, **VIRTUAL).perfs()
    assert first["generate_ms"] == pytest.approx(1000)
    assert second["generate_ms"] == pytest.approx(1500, rel=0.02)


def test_jitter_varies_the_steps_around_their_mean(play) -> None:
    lines = "decode_ms_per_token: 10\njitter: 0.2"
    first, second = play("run", "story 200 tokens", "run", "story 200 tokens", lines=lines, **VIRTUAL).perfs()
    assert first["generate_ms"] != second["generate_ms"]
    assert first["generate_ms"] == pytest.approx(2000, rel=0.05)


def test_environment_changes_profile_and_speed_of_the_same_file(play) -> None:
    words = ["run", "story 10 tokens"]
    lines = "decode_ms_per_token: 10"
    own = play(*words, lines=lines, **VIRTUAL).perfs()[0]
    quick = play(*words, lines=lines, RKLLM_SIM_SPEED=4, **VIRTUAL).perfs()[0]
    other = play(*words, lines=lines, RKLLM_SIM_PROFILE="origin", **VIRTUAL).perfs()[0]
    assert own["generate_ms"] == pytest.approx(100)
    assert quick["generate_ms"] == pytest.approx(25)
    assert other["generate_ms"] == pytest.approx(641.4)
    assert play(RKLLM_SIM_PROFILE="warp").of("init")[0]["status"] == -1


def test_real_time_is_really_spent(play) -> None:
    begin = time.monotonic()
    lines = "floor_ms: 50\ndecode_ms_per_token: 10\nload_ms: 50"
    perf = play("run", "story 20 tokens", lines=lines).perfs()[0]
    assert time.monotonic() - begin >= 0.3
    assert perf["prefill_ms"] >= 49
    # The steps keep to their times whatever the first one was late.
    assert perf["prefill_ms"] + perf["generate_ms"] >= 249


def test_instant_gives_more_than_half_a_million_tokens_a_second(play) -> None:
    rates = play("measure", "story 100000 tokens", "measure", "story 100000 tokens").of("rate")
    assert [rate["tokens"] for rate in rates] == [100001, 100001]
    assert max(rate["tokens"] / rate["seconds"] for rate in rates) > 500_000


def test_a_trace_file_tells_the_time_of_the_slot(play, tmp_path) -> None:
    play(
        "run",
        "hello",
        "run",
        "hello",
        RKLLM_SIM_TRACE=tmp_path / "trace.jsonl",
        lines="decode_ms_per_token: 1",
    )
    lines = (tmp_path / "trace.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all('"entry_ns"' in line and '"return_ns"' in line for line in lines)


def test_a_file_of_prompts_tells_which_prompt_ran_from_when_to_when(play, tmp_path) -> None:
    play(
        "run", 'say "a\\b"', "run", "crash", RKLLM_SIM_PROMPTS=tmp_path / "prompts.jsonl",
        lines='when "crash": fault exit 3 after 1 tokens',
    )  # fmt: skip
    first, ended, second = map(json.loads, (tmp_path / "prompts.jsonl").read_text().splitlines())
    assert first["user"] == 'say "a\\b"'
    assert (first["pid"], first["run"]) == (ended["pid"], ended["run"])
    assert first["begin_ns"] <= ended["end_ns"] <= second["begin_ns"]
    assert second["user"] == "crash"  # and no end: the process died in it
